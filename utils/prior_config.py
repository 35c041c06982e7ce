"""The YAML of a prior's training -> one typed, checked, immutable config, as `utils/config.py` reads an experiment's.

Keys that an experiment's YAML has too mean the same here. No torch: the launcher reads it before any process starts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from utils.config import usual_normalisation
from utils.config_parts import OptimizerConfig, SchedularConfig
from utils.errors import InputError, listed
from utils.picture_rule import impossible_rule
from utils.typed import Bounds, Count, FewOrNone, Precision, Share, Width, read_fields, read_overridden


@dataclass(frozen=True)
class PriorConfig:
    """A scene classifier and its pictures. Paths are relative to the folder the program runs in."""

    # Pictures: `class_folders`, one folder of pictures a class; or the labels of annotation files
    class_folders: str | None = None
    train_file: tuple[str, ...] | None = None
    val_file: str | None = None  # null: the validation pictures are drawn from the training pictures
    test_file: str | None = None  # null: the result is of the validation pictures
    image_root: str | None = None
    val_fraction: Annotated[float, Bounds(above=0, below=1)] = (
        0.1  # of each class, where the validation pictures are drawn
    )
    test_fraction: Share = 0.2  # of each class, where class_folders has no train/
    split_seed: int = 0  # of that draw; the command line's --seed is the training's
    image_res: Width = 224
    batch_size_train: Count = 64  # per process
    batch_size_test: Count = 128
    randaugment_ops: FewOrNone = 2
    quarter_turns: bool = False
    deep_pictures: str = "refuse"
    bands: tuple[Count, ...] | None = None
    num_workers: FewOrNone = 4

    # The classifier and its start (null: random weights)
    backbone: str = "resnet50"  # any timm model
    normalisation: Literal["clip", "own"] = "clip"  # of its pictures; see `usual_normalisation`
    start: str | None = None
    trained_stages: Count | None = None  # the last so many stages of the backbone; null: all
    fixed_bn: bool = False

    # Optimisation; the optimizer's lr_mult_heads has lr_mult reach the classifier's last layer
    label_smoothing: Share = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedular: SchedularConfig = field(default_factory=SchedularConfig)
    average_decay: Share = 0.0  # exponential average of the weights, which is what is kept; 0: none
    precision: Precision = "float32"  # as of `utils.config`

    @property
    def annotation_files(self) -> list[str]:
        """Those that it names."""
        return [name for name in (*(self.train_file or ()), self.val_file, self.test_file) if name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML, JSON and start files."""
        lists = {"train_file": self.train_file, "bands": self.bands}
        return asdict(self) | {key: list(value) if value else None for key, value in lists.items()}


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
    if not problems:
        read.setdefault("normalisation", usual_normalisation(read.get("backbone", PriorConfig.backbone)))
        config = PriorConfig(**read)
        problems = _impossible(config)
    if problems:
        raise InputError(f"config: {listed(problems)}")
    return config


def _impossible(c: PriorConfig) -> list[str]:
    """Choices that cannot work together, found without opening a file."""
    problems = impossible_rule(c.deep_pictures, c.bands)
    if bool(c.class_folders) == bool(c.train_file):
        problems.append("the pictures come from 'class_folders' or from 'train_file'; give one of them")
    elif c.train_file and not (all(c.train_file) and c.image_root):
        problems.append("'train_file' needs names of files, and 'image_root', the folder of their pictures")
    elif c.class_folders and (c.val_file or c.test_file or c.image_root):
        problems.append("'val_file', 'test_file' and 'image_root' go with 'train_file', not with 'class_folders'")
    if c.optimizer.layer_decay < 1:
        problems.append("'optimizer.layer_decay' is for retrieval; a prior has none")
    if c.val_fraction + c.test_fraction >= 1:
        problems.append("'val_fraction' and 'test_fraction' must be both together below 1")
    return problems
