"""The paper's numbers, and which of them a checkpoint is to be held against: by what its config says, never guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from utils.config import Config
from utils.typed import read_yaml

FILE = Path(__file__).parent / "published.yaml"

# What says nothing of a method: where files lie, how it is run and trained. `patch_size` is read by the ViT alone.
_FREE = {
    *("train_file", "val_file", "test_file", "image_root", "scenes", "resnet_ckpt", "text_encoder", "tokenizer"),
    *("batch_size_train", "batch_size_test", "batch_size_test_text", "num_workers", "k_test", "precision"),
    *("patch_size", "temp1", "temp2", "optimizer", "schedular"),
}


@dataclass(frozen=True)
class Method:
    """A row of the paper's table."""

    title: str
    config: Mapping[str, Any]  # the values by which a config is known to be the method's
    figures: Mapping[str, Mapping[str, float]]  # data set -> figure -> percent


@dataclass(frozen=True)
class PublishedTable:
    """The paper's table, and how many test pictures its numbers are on."""

    source: str
    test_pictures: Mapping[str, int]  # data set -> pictures
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class Match:
    """What a checkpoint is in the paper's terms. Without `figures`, `note` says why none stand beside it."""

    method: str | None = None
    dataset: str | None = None
    figures: Mapping[str, float] | None = None
    note: str = ""


def read_published() -> PublishedTable:
    """The table of `published.yaml`."""
    values = read_yaml(FILE)
    datasets = values["test_pictures"]
    methods = [
        Method(m["title"], m["config"], {d: dict(zip(values["figures"], m[d], strict=True)) for d in datasets})
        for m in values["methods"]
    ]
    return PublishedTable(values["source"], datasets, tuple(methods))


def match(config: Config, test_file: str, pictures: int | None) -> Match:
    """The published row of a checkpoint.

    config: the one it was trained with; test_file: what it is measured on, which names the data set, and `pictures`,
    how many that holds (None: not measured yet).
    """
    table = read_published()
    method, why_no_method = _method(config, table.methods)
    dataset = _dataset(test_file, table)
    if dataset is None:
        names = " or ".join(f"{name}_test" for name in table.test_pictures)
        return Match(method, None, None, why_no_method or f"test file {test_file!r} is not named {names}")
    if method is None:
        return Match(None, dataset, None, why_no_method)
    if pictures not in (None, table.test_pictures[dataset]):
        published = table.test_pictures[dataset]
        return Match(
            method, dataset, None, f"measured on {pictures} pictures, the published numbers are on {published}"
        )
    figures = next(m.figures[dataset] for m in table.methods if m.title == method)
    return Match(method, dataset, figures)


def _dataset(test_file: str, table: PublishedTable) -> str | None:
    found = re.fullmatch(r"(\w+)_test", PurePath(test_file).stem.lower())
    return found[1] if found and found[1] in table.test_pictures else None


def _method(config: Config, methods: tuple[Method, ...]) -> tuple[str | None, str]:
    """The method's title, or None and why it is none of them."""
    values = config.to_dict()
    for method in methods:
        if all(values[key] == wanted for key, wanted in method.config.items()):
            other = _unlike_released(values, set(method.config))
            if other:
                return None, f"its config is that of '{method.title}' but for {', '.join(other)}"
            return method.title, ""
    keys = ", ".join(f"{key} {values[key]}" for key in methods[0].config)
    return None, f"no method of the paper's table has {keys}"


def _unlike_released(values: Mapping[str, Any], said: set[str]) -> list[str]:
    """`key value` of what is neither said by the method nor as in a released config, whose values are the defaults."""
    free = _FREE | said | (set() if values["use_swin"] else {"vision_config"})
    released = Config(train_file=(), val_file="", test_file="", image_root="").to_dict()
    return [f"{key} {value}" for key, value in values.items() if key not in free and not _same(value, released[key])]


def _same(value: Any, released: Any) -> bool:
    """Whether two values of a config are the same, files by their names in whatever folder."""
    return value == released or (isinstance(value, str) and PurePath(value).name == PurePath(str(released)).name)
