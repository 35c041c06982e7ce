"""Whether the rows of a study are on one test set: asked of their files before runs, of their results after."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from dataset.annotations import read_evaluation
from study.plan import PlannedRow
from study.results import Finished
from utils.errors import InputError


def check_test_files(rows: Iterable[PlannedRow]) -> None:
    """Raise InputError where rows name test files of different pictures; what cannot be read is its run's to tell."""
    row_of: dict[str, PlannedRow] = {}  # by test file, the first row that names it
    for row in rows:
        row_of.setdefault(row.config.test_file, row)
    if len(row_of) == 1:
        return
    first = None
    for file, row in row_of.items():
        try:
            test_set = read_evaluation(file, row.config.image_root)
        except InputError:
            continue
        told, pictures = f"row {row.name} on {file}", (test_set.names, test_set.own_image_of_text)
        first = first or (told, pictures)
        if pictures != first[1]:
            _refuse(first[0], told)


def check_same_test_set(runs: Mapping[str, Sequence[Finished]]) -> None:
    """Raise InputError where two runs that a table compares were measured on different pictures or captions."""
    every = [(row, run) for row, of_row in runs.items() for run in of_row]
    with_ranks = [(row, run) for row, run in every if run.ranks is not None]
    for (first_row, first), (row, run) in zip(every[:1] * len(every), every, strict=True):
        sizes = [(r.figures.pictures, r.figures.captions) for r in (first, run)]
        named = [Path(r.figures.test_file).name for r in (first, run)]
        if sizes[0] != sizes[1] or (named[0] != named[1] and None in (first.ranks, run.ranks)):
            _different(first_row, first, row, run)
    for (first_row, first), (row, run) in zip(with_ranks[:1] * len(with_ranks), with_ranks, strict=True):
        pairs = [(getattr(first.ranks, name), getattr(run.ranks, name)) for name in ("images", "own_image_of_text")]
        if not all(np.array_equal(*pair) for pair in pairs):
            _different(first_row, first, row, run)


def _different(first_row: str, first: Finished, row: str, run: Finished) -> None:
    def told(name: str, r: Finished) -> str:
        f = r.figures
        return f"{name} seed {r.seed} on {f.test_file} ({f.pictures} pictures, {f.captions} captions)"

    _refuse(told(first_row, first), told(row, run))


def _refuse(first: str, other: str) -> NoReturn:
    raise InputError(f"different test sets cannot be compared: {first}, {other}; give one its own study")
