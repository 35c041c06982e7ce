"""What the runs of a row left: result.json, ranks.npz and embeddings.npz, read and checked."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from study.plan import FIGURES, PlannedRow
from study.runs import differing_values, read_result
from utils.errors import InputError, listed, reason
from utils.output import RANKS, RESULT
from utils.typed import override_of, read_fields

SEED_FOLDER = re.compile(r"seed_(0|[1-9][0-9]*)")
ROUNDING = 0.02  # result.json's figures are rounded to 2


@dataclass(frozen=True)
class Parameters:
    """Numbers of a model's parameters."""

    total: int
    trained: int


@dataclass(frozen=True)
class Figures:
    """What a table needs of a result.json."""

    txt_r1: float
    txt_r5: float
    txt_r10: float
    img_r1: float
    img_r5: float
    img_r10: float
    r_mean: float
    test_file: str
    pictures: int
    captions: int
    seed: int
    processes: int
    batch_size: int  # over all processes
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    parameters: Parameters | None = None


@dataclass(frozen=True)
class Ranks:
    """The places of the right answers on a test set of I pictures and T captions, from 0."""

    image_to_text: np.ndarray  # [I], the best of the picture's own captions
    text_to_image: np.ndarray  # [T]
    own_image_of_text: np.ndarray  # [T]
    images: np.ndarray  # [I], names

    def r_mean(self) -> float:
        """The mean of the six recalls, in percent."""
        sides = (self.image_to_text, self.text_to_image)
        return 100 * float(np.mean([(ranks < k).mean() for ranks in sides for k in (1, 5, 10)]))


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    seed: int
    folder: Path
    figures: Figures
    ranks: Ranks | None
    differing: Mapping[str, Any]  # by dotted key, what its config has where it is not the study's

    def own_overrides(self) -> list[str]:
        """The arguments by which, behind the study's own, run.py trains under this run's config."""
        return [part for each in self.differing.items() for part in ("--override", override_of(*each))]


def finished_runs(output_dir: Path, row: PlannedRow) -> list[Finished]:
    """A row's finished runs by seed. Raises InputError for a damaged file and a ranks.npz of another run."""
    folders = [folder for folder in (output_dir / row.name).glob("seed_*") if SEED_FOLDER.fullmatch(folder.name)]
    finished = [_finished(folder, row) for folder in folders if (folder / RESULT).exists()]
    return sorted(finished, key=lambda run: run.seed)


def finished_seeds(output_dir: Path, rows: Iterable[str]) -> list[int]:
    """The seeds that any of the rows has a result of, in order."""
    results = [file for row in rows for file in (output_dir / row).glob(f"seed_*/{RESULT}")]
    found = {match[1] for file in results if (match := SEED_FOLDER.fullmatch(file.parent.name))}
    return sorted(map(int, found))


def _finished(folder: Path, row: PlannedRow) -> Finished:
    values = read_result(folder / RESULT)
    problems: list[str] = []
    known = {f.name for f in fields(Figures)}
    read = read_fields(Figures, {key: value for key, value in values.items() if key in known}, "", problems)
    if not problems:
        figures = Figures(**read)
        if not all(0 <= getattr(figures, name) <= 100 for name in FIGURES):
            problems.append("a figure is not in percent")
        if figures.seed != int(folder.name.removeprefix("seed_")):
            problems.append(f"'seed' is {figures.seed}")
        if not isinstance(values.get("config"), Mapping):
            problems.append("'config' is missing")
        if values.get("epoch") is None:
            problems.append("it is of an evaluation, not of a training")
    if problems:
        raise InputError(f"{folder / RESULT}: {listed(problems)}")
    ranks = _read_ranks(folder / RANKS, figures) if (folder / RANKS).exists() else None
    differing = differing_values(values["config"], row.config, folder / RESULT)
    return Finished(figures.seed, folder, figures, ranks, differing)


def _read_ranks(file: Path, figures: Figures) -> Ranks:
    arrays = read_arrays(file)
    i, t = figures.pictures, figures.captions
    shapes = {"image_to_text": (i,), "text_to_image": (t,), "own_image_of_text": (t,), "images": (i,)}
    whole = {name: arrays[name] for name in shapes if name in arrays and arrays[name].shape == shapes[name]}
    numbers = [whole.get(name) for name in ("image_to_text", "text_to_image", "own_image_of_text")]
    if len(whole) < len(shapes) or any(x.dtype.kind not in "iu" or (x < 0).any() for x in numbers):
        raise InputError(f"{file} does not hold the ranks of {i} pictures and {t} captions; remove it or run again")
    if not np.array_equal(np.unique(whole["own_image_of_text"]), np.arange(i)):
        raise InputError(f"{file}: not every picture has a caption; remove it or run again")
    ranks = Ranks(**whole)
    if abs(ranks.r_mean() - figures.r_mean) > ROUNDING:
        raise InputError(
            f"{file} gives r_mean {ranks.r_mean():.2f}, {RESULT} beside it {figures.r_mean:.2f}; run again"
        )
    return ranks


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file; nothing in it is unpickled. Raises InputError where it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # damaged bytes can raise nearly anything inside the reader
        raise InputError(f"{file} is damaged or no .npz file ({reason(error)}); remove it or run again") from None
