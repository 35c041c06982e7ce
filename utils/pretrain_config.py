"""The YAML of a pre-training -> one typed, checked config, and that of the experiment whose model it trains.

No torch: the launcher reads it before any process starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.config import ROOT, Config, config_from_file
from utils.config_parts import OptimizerConfig, ScenesConfig, SchedularConfig
from utils.errors import InputError, listed
from utils.typed import Count, Positive, read_fields, read_overridden


@dataclass(frozen=True)
class Source:
    """Tar shards, named as `train_file` names them, and how often a picture is drawn from them."""

    shards: tuple[str, ...]
    weight: Positive = 1.0


@dataclass(frozen=True)
class PretrainConfig:
    """A pre-training in steps. Paths are relative to the folder the program runs in."""

    model: str  # the YAML of an experiment: its model, tokenizer, loss, picture rules and validation set are taken
    sources: tuple[Source, ...]
    steps: Count
    evaluate_every: Count  # so many steps
    overrides: tuple[str, ...] = ()  # of the experiment's keys, `KEY=VALUE`
    scenes: ScenesConfig | None = None  # drawn, its training pictures as shards, where `folder` lacks them
    batch_size_train: Count = 512  # pictures, one caption each, per process
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedular: SchedularConfig = field(default_factory=lambda: SchedularConfig(sched="cosine"))  # but its epochs


def pretrain_config_from_file(file: str | Path, overrides: list[str] | None = None) -> tuple[PretrainConfig, Config]:
    """Read a YAML file and `key=value` overrides (dotted for nested keys): the pre-training, and what is trained.

    The experiment has the pre-training's batch, optimizer and schedule; an epoch of it is `evaluate_every` steps.
    Raises InputError in one line for what is missing, unknown, of the wrong kind or impossible, in either file.
    """
    values: Mapping[str, Any] = read_overridden(file, overrides)
    problems: list[str] = []
    read = read_fields(PretrainConfig, values, "", problems)
    if not problems:
        config = PretrainConfig(**read)
        problems = _impossible(config)
    if problems:
        raise InputError(f"config {file}: {listed(problems)}")
    beside = ROOT / config.model  # where one of the project's own is meant, wherever the program runs
    model = beside if beside.is_file() and not Path(config.model).is_file() else config.model
    experiment = config_from_file(model, [*config.overrides])
    for key in ("lora", "shard"):
        if getattr(experiment, key):
            raise InputError(f"config {file}: a pre-training has no {key}; take it out of {config.model}")
    return config, replace(
        experiment,
        train_file=tuple(pattern for source in config.sources for pattern in source.shards),
        batch_size_train=config.batch_size_train,
        captions_per_image=1,
        use_affil_loss=False,  # whose scenes pre-training pictures have not
        select_on="val",
        optimizer=config.optimizer,
        schedular=replace(config.schedular, epochs=config.steps // config.evaluate_every),
    )


def _impossible(c: PretrainConfig) -> list[str]:
    problems = []
    if not c.sources or not all(source.shards for source in c.sources):
        problems.append("'sources' must name shards: [{shards: [folder/name-{000000..000009}.tar], weight: 1}]")
    if c.steps % c.evaluate_every:
        below = c.steps - c.steps % c.evaluate_every
        problems.append(f"'steps' {c.steps} is no multiple of 'evaluate_every' {c.evaluate_every}: {below} would be")
    return problems
