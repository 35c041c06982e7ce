"""A study file -> typed, checked rows, each with the config it trains under. Nothing of the data is opened."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from study.compared import released_values
from study.published import fill_published
from utils.config import Config, config_from_file
from utils.errors import InputError, listed
from utils.launch import choices, nearest
from utils.typed import Count, read_based_yaml, read_fields

FIGURES = ("txt_r1", "txt_r5", "txt_r10", "img_r1", "img_r5", "img_r10", "r_mean")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MOST_SEED = 2**32 - 1  # an epoch's number is added to it, and torch takes 64 bits
RESERVED = re.compile(r"(table|r_mean|curve|tsne)\..*")  # files in the folder of the rows' folders


@dataclass(frozen=True)
class Published:
    """The seven figures as a paper gives them; what it does not give is None."""

    txt_r1: float | None = None
    txt_r5: float | None = None
    txt_r10: float | None = None
    img_r1: float | None = None
    img_r5: float | None = None
    img_r10: float | None = None
    r_mean: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Those that are given."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Row:
    """One row as the study file has it."""

    title: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    published: Published | None = None
    source: str | None = None


@dataclass(frozen=True)
class Curve:
    """A figure of r_mean over a config key: each row's place on its axis."""

    key: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Study:
    """A study file (`configs/studies/NAME.yaml`), what it names in `study/published.yaml` filled in."""

    title: str
    config: str
    task: str
    rows: Mapping[str, Row]
    seeds: tuple[int, ...] = (42,)
    overrides: tuple[str, ...] = ()
    bs: Count | None = None  # the global batch of every run; null: the config's, per process
    notes: str | None = None
    published_pictures: int | None = None  # of the test set that the published figures are on
    compare_to: str | None = None
    curve: Curve | None = None
    tsne: tuple[str, ...] = ()

    def title_of(self, row: str) -> str:
        """How tables and figures name a row."""
        return self.rows[row].title or row


@dataclass(frozen=True)
class PlannedRow:
    """What a row's runs are started with: its config file, the overrides on it, and the config both make."""

    name: str
    config_file: str
    overrides: tuple[str, ...]
    config: Config
    bs: int | None = None


def read_study(file: Path, tasks: Sequence[str]) -> Study:
    """Read and check a study file; `tasks` are run.py's that train retrieval.

    Raises InputError in one line for a missing or broken file, unknown keys (with the nearest known one), values of
    the wrong kind, and names that are not a row's.
    """
    problems: list[str] = []
    read = read_fields(Study, study_values(file), "", problems)
    if not problems:
        study = Study(**read)
        problems += _impossible(study, tasks)
    if problems:
        raise InputError(f"study {file}: {listed(problems)}")
    return study


def study_values(file: Path) -> dict[str, Any]:
    """The plain values of a study file over those of its `base`, published figures in the place of their names."""
    values = read_based_yaml(file)
    try:
        return fill_published(values)
    except InputError as error:
        raise InputError(f"study {file}: {error}") from None


def plan_rows(study: Study, overrides: Sequence[str]) -> dict[str, PlannedRow]:
    """Each row with its config; `overrides` come last. Raises InputError naming the rows whose config is wrong."""
    planned, problems = {}, []
    for name, row in study.rows.items():
        file, together = row.config or study.config, (*study.overrides, *row.overrides, *overrides)
        try:
            planned[name] = PlannedRow(name, file, together, config_from_file(file, list(together)), study.bs)
        except InputError as error:
            problems.append(f"row {name}: {error}")
    if problems:
        raise InputError(listed(problems))
    return planned


def check_rows(study: Study, names: Sequence[str]) -> None:
    """Raise InputError for a name that is not a row's, or is given twice."""
    for name in names:
        if name not in study.rows:
            raise InputError(f"--rows: no row {name!r}: {choices(name, tuple(study.rows))}")
    if len(set(names)) < len(names):
        raise InputError("--rows names a row twice")


def possible_seeds(seeds: Sequence[int]) -> bool:
    """Whether a study can run with these: different numbers, and at least one."""
    return bool(seeds) and len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) <= MOST_SEED


def _impossible(study: Study, tasks: Sequence[str]) -> list[str]:
    problems = []
    if study.task not in tasks:
        problems.append(f"unknown task {study.task!r}: {choices(study.task, tasks)}")
    if not study.rows:
        problems.append("'rows' names no row")
    if not possible_seeds(study.seeds):
        problems.append(f"'seeds' is {list(study.seeds)}, expected different numbers from 0 to {MOST_SEED}")
    if study.published_pictures is not None and study.published_pictures < 1:
        problems.append(f"'published_pictures' is {study.published_pictures}, expected a test set's number")
    # Capitals and small letters are one folder on some disks.
    for what, of_row in (("title", study.title_of), ("name but for capitals", str.casefold)):
        first: dict[str, str] = {}
        for name in study.rows:
            if (other := first.setdefault(of_row(name), name)) != name:
                problems.append(f"rows {other} and {name} have the same {what}")
    for name, row in study.rows.items():
        if not NAME.fullmatch(name) or RESERVED.fullmatch(name):
            problems.append(f"row {name!r} names a folder: letters, digits, '.', '_', '-', and no file of the table")
        figures = row.published.figures if row.published else {}
        if figures and not row.source:
            problems.append(f"row {name} has published figures but no 'source'")
        if row.source and not figures:
            problems.append(f"row {name} has a 'source' but no published figures")
        problems += [
            f"'rows.{name}.published.{figure}' is {value}, expected percent"
            for figure, value in figures.items()
            if not 0 <= value <= 100
        ]
    keys = list(released_values())
    if study.curve and study.curve.key not in keys:
        problems.append(f"'curve.key' is no config key {study.curve.key!r}{nearest(study.curve.key, keys)}")
    named = [("compare_to", study.compare_to)] if study.compare_to is not None else []
    named += [("curve.values", row) for row in study.curve.values] if study.curve else []
    named += [("tsne", row) for row in study.tsne]
    problems += [
        f"'{key}' names no row {row!r}: {choices(row, tuple(study.rows))}"
        for key, row in named
        if row not in study.rows
    ]
    return problems
