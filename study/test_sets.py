"""Whether the rows of a study are on one test set: by their files before runs, by their results after."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from dataset.annotations import read_evaluation
from study.plan import PlannedRow
from study.results import Finished
from utils.errors import InputError


def check_test_files(rows: Iterable[PlannedRow]) -> None:
    """Raise InputError where rows name test files of different pictures; what cannot be read is for its run to say."""
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
        described, pictures = f"row {row.name} on {file}", (test_set.names, test_set.own_image_of_text)
        first = first or (described, pictures)
        if pictures != first[1]:
            _refuse(first[0], described)


def check_same_test_set(runs: Mapping[str, Sequence[Finished]]) -> None:
    """Raise InputError where two runs that a table compares were measured on different pictures or captions."""
    every = [(row, run) for row, of_row in runs.items() for run in of_row]
    with_ranks = [(row, run) for row, run in every if run.ranks is not None]
    for those in (every, with_ranks):
        for row, run in those[1:]:
            if not _same_test_set(those[0][1], run):
                _refuse(_described(*those[0]), _described(row, run))


def _same_test_set(first: Finished, other: Finished) -> bool:
    """By the pictures where both runs have ranks, otherwise by their number and the file's name."""
    a, b = first.figures, other.figures
    if (a.pictures, a.captions) != (b.pictures, b.captions):
        return False
    if first.ranks is None or other.ranks is None:
        return Path(a.test_file).name == Path(b.test_file).name
    pairs = [(getattr(first.ranks, name), getattr(other.ranks, name)) for name in ("images", "own_image_of_text")]
    return all(np.array_equal(*pair) for pair in pairs)


def _described(row: str, run: Finished) -> str:
    f = run.figures
    return f"{row} seed {run.seed} on {f.test_file} ({f.pictures} pictures, {f.captions} captions)"


def _refuse(first: str, other: str) -> NoReturn:
    raise InputError(f"different test sets cannot be compared: {first}, {other}; give one its own study")
