"""The paper's numbers: those a study's rows name, and those of a checkpoint by what its config says, never guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from study.compared import differing, released_values
from utils.config import Config
from utils.errors import InputError
from utils.launch import choices
from utils.typed import read_yaml

FILE = Path(__file__).parent / "published.yaml"

# What says nothing of a method: where files lie, how it is run and trained. `patch_size` is read by the ViT alone.
_FREE = {
    *("train_file", "val_file", "test_file", "image_root", "scenes", "resnet_ckpt", "text_encoder", "tokenizer"),
    *("batch_size_train", "batch_size_test", "batch_size_test_text", "num_workers", "k_test", "precision"),
    *("patch_size", "temp1", "temp2", "optimizer", "schedular", "image_id", "train_image_roots", "vision_config.ckpt"),
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
    named: Mapping[str, Method]

    @property
    def methods(self) -> tuple[Method, ...]:
        """Its rows in order."""
        return tuple(self.named.values())


@dataclass(frozen=True)
class Match:
    """What a checkpoint is in the paper's terms. Without `figures`, `note` says why it has none."""

    method: str | None = None
    dataset: str | None = None
    figures: Mapping[str, float] | None = None
    note: str = ""


def read_published() -> PublishedTable:
    """The table of `published.yaml`."""
    values = read_yaml(FILE)
    datasets = values["test_pictures"]
    named = {
        name: Method(m["title"], m["config"], {d: dict(zip(values["figures"], m[d], strict=True)) for d in datasets})
        for name, m in values["methods"].items()
    }
    return PublishedTable(values["source"], datasets, named)


def fill_published(study: dict[str, Any]) -> dict[str, Any]:
    """A study's plain values, with the figures of the table where `published` of it and of its rows refer to it.

    A row that names a method gets its title, unless it has its own, its figures and their source; the study gets the
    number of test pictures. Raises InputError for a name that the table does not have.
    """
    rows = study["rows"] if isinstance(study.get("rows"), dict) else {}
    referring = {name: row for name, row in rows.items() if isinstance(row, dict) and type(row.get("published")) is str}
    if "published" not in study and not referring:
        return study
    table, dataset = read_published(), str(study.get("published"))
    if dataset not in table.test_pictures:
        raise InputError(f"'published' is {dataset}: {choices(dataset, tuple(table.test_pictures))}")
    filled = dict(rows)
    for name, row in referring.items():
        if row["published"] not in table.named:
            known = choices(row["published"], tuple(table.named))
            raise InputError(f"'rows.{name}.published' is {row['published']}: {known}")
        method = table.named[row["published"]]
        filled[name] = {"title": method.title, **row, "published": method.figures[dataset], "source": table.source}
    rest = {key: value for key, value in study.items() if key != "published"}
    return {"published_pictures": table.test_pictures[dataset], **rest, "rows": filled}


def match(config: Config, test_file: str, pictures: int | None) -> Match:
    """The published row of a checkpoint.

    config: the one it was trained with; test_file: what it is measured on, which names the data set, and `pictures`,
    how many that holds (None: not measured yet).
    """
    table = read_published()
    method, why_no_method = _method(config, table)
    found = re.fullmatch(r"(\w+)_test", PurePath(test_file).stem.lower())
    dataset = found[1] if found and found[1] in table.test_pictures else None
    if dataset is None:
        names = " or ".join(f"{name}_test" for name in table.test_pictures)
        why_no_method = why_no_method or f"test file {test_file!r} is not named {names}"
    if dataset is None or method is None:
        return Match(method.title if method else None, dataset, None, why_no_method)
    published = table.test_pictures[dataset]
    if pictures not in (None, published):
        note = f"measured on {pictures} pictures, the published numbers are on {published}"
        return Match(method.title, dataset, None, note)
    return Match(method.title, dataset, method.figures[dataset])


def _method(config: Config, table: PublishedTable) -> tuple[Method | None, str]:
    """The method, or None and why it is none of them."""
    values = config.to_dict()
    for method in table.methods:
        if all(values[key] == wanted for key, wanted in method.config.items()):
            other = _unlike_released(values, set(method.config))
            if other:
                return None, f"its config is that of '{method.title}' but for {', '.join(other)}"
            return method, ""
    keys = ", ".join(f"{key} {values[key]}" for key in table.methods[0].config)
    return None, f"no method of the paper's table has {keys}"


def _unlike_released(values: Mapping[str, Any], said: set[str]) -> list[str]:
    """`key value` of what is neither said by the method nor as in a released config, whose values are the defaults."""
    free = _FREE | said | (set() if values["use_swin"] else {"vision_config"})
    others = differing(released_values(), values)
    said_otherwise = []
    for key, (released, value) in others.items():
        same_file = isinstance(value, str) and PurePath(value).name == PurePath(str(released)).name  # in any folder
        # BERT's JSON files of others hold keys more or less that say nothing of its size.
        unsaid = key.startswith("text_config.") and None in (value, released)
        if not same_file and not unsaid and not {key, key.partition(".")[0]} & free:
            said_otherwise.append(f"{key} {value}")
    return said_otherwise
