"""The YAML of a prior's training -> one typed, checked, immutable config, as `utils/config.py` reads an experiment's.

Keys that an experiment's YAML has too mean the same here. No torch: the launcher reads it before any process starts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from utils.config import OptimizerConfig, SchedularConfig
from utils.errors import InputError, listed
from utils.typed import read_fields, read_overridden


@dataclass(frozen=True)
class PriorConfig:
    """A scene classifier and its pictures. Paths are relative to the folder the program runs in."""

    # Pictures: `class_folders`, one folder of pictures a class; or the labels of annotation files
    class_folders: str | None = None
    train_file: tuple[str, ...] | None = None
    val_file: str | None = None  # null: the validation pictures are drawn from the training pictures
    test_file: str | None = None  # null: the result is of the validation pictures
    image_root: str | None = None
    val_fraction: float = 0.1  # of each class, where the validation pictures are drawn
    test_fraction: float = 0.2  # of each class, where class_folders has no train/
    split_seed: int = 0  # of that draw; the command line's --seed is the training's
    image_res: int = 224
    batch_size_train: int = 64  # per process
    batch_size_test: int = 128
    randaugment_ops: int = 2
    quarter_turns: bool = False
    num_workers: int = 4

    # The classifier and its start (null: random weights)
    backbone: str = "resnet50"  # any timm model
    start: str | None = None
    trained_stages: int | None = None  # the last so many stages of the backbone; null: all
    fixed_bn: bool = False

    # Optimisation; the optimizer's lr_mult_heads has lr_mult reach the classifier's last layer
    label_smoothing: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedular: SchedularConfig = field(default_factory=SchedularConfig)
    average_decay: float = 0.0  # exponential average of the weights, which is what is kept; 0: none
    precision: Literal["float32", "bf16", "auto"] = "float32"  # auto: bf16 where the processor has it

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML, JSON and start files."""
        return asdict(self) | {"train_file": list(self.train_file) if self.train_file else None}


def prior_config_from_file(file: str | Path, overrides: list[str] | None = None) -> PriorConfig:
    """Read a YAML file and `key=value` overrides (dotted for nested keys) into a config.

    Raises InputError in one line for a missing or broken file, an unknown key, a value of the wrong kind.
    """
    return prior_config_from_dict(read_overridden(file, overrides))


def prior_config_from_dict(values: Mapping[str, Any]) -> PriorConfig:
    """Plain values to a typed, checked, immutable config.

    Raises InputError naming every unknown key (with the nearest known one), wrong kind and impossible value,
    counted, the first five shown.
    """
    known = dict(values)
    if isinstance(known.get("train_file"), str):
        known["train_file"] = [known["train_file"]]
    problems: list[str] = []
    read = read_fields(PriorConfig, known, "", problems)
    config = PriorConfig(**read) if not problems else None
    problems += _impossible(config) if config else []
    if problems:
        raise InputError(f"config: {listed(problems)}")
    return config


def _impossible(c: PriorConfig) -> list[str]:
    """Values and choices that cannot work, found without opening a file."""
    problems = [
        f"'{name}' is {getattr(c, name)}, must be at least 1"
        for name in ("image_res", "batch_size_train", "batch_size_test")
        if getattr(c, name) < 1
    ]
    if bool(c.class_folders) == bool(c.train_file):
        problems.append("the pictures come from 'class_folders' or from 'train_file'; give one of them")
    elif c.train_file and not (all(c.train_file) and c.image_root):
        problems.append("'train_file' needs names of files, and 'image_root', the folder of their pictures")
    elif c.class_folders and (c.val_file or c.test_file or c.image_root):
        problems.append("'val_file', 'test_file' and 'image_root' go with 'train_file', not with 'class_folders'")
    if not 0 < c.val_fraction < 1 or c.test_fraction < 0 or c.val_fraction + c.test_fraction >= 1:
        problems.append("'val_fraction' must be above 0, 'test_fraction' at least 0, and both together below 1")
    if c.trained_stages is not None and c.trained_stages < 1:
        problems.append("'trained_stages' must be at least 1, or null for all")
    for name in ("label_smoothing", "average_decay"):
        if not 0 <= getattr(c, name) < 1:
            problems.append(f"'{name}' is {getattr(c, name)}, must be at least 0 and below 1")
    if c.num_workers < 0 or c.randaugment_ops < 0 or c.optimizer.weight_decay < 0:
        problems.append("'num_workers', 'randaugment_ops' and 'optimizer.weight_decay' must be at least 0")
    if c.optimizer.lr <= 0 or c.schedular.epochs < 1 or c.schedular.num_warmup_steps < 0:
        problems.append("'optimizer.lr' must be above 0, 'schedular.epochs' at least 1, 'num_warmup_steps' at least 0")
    return problems
