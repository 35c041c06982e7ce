"""What runs leave: result.json, ranks.npz and embeddings.npz, read and checked."""

import math
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from study.compared import differing_from_recorded
from study.plan import FIGURES, PlannedRow
from utils.errors import InputError, listed, reason
from utils.files import check_regular, read_json
from utils.output import EMBEDDINGS, RANKS, RESULT
from utils.override_text import override_of
from utils.typed import read_fields

SEED_FOLDER = re.compile(r"seed_(0|[1-9][0-9]*)")
ROUNDING = 0.02  # result.json's figures are rounded to 2
MOST_ARRAY_BYTES = 16 * 2**30  # of a compressed file, unpacked


@dataclass(frozen=True)
class Parameters:
    """Numbers of a model's parameters."""

    total: int
    trained: int


@dataclass(frozen=True)
class Figures:
    """What any result.json says: seven figures in percent, and on how many pictures."""

    txt_r1: float
    txt_r5: float
    txt_r10: float
    img_r1: float
    img_r5: float
    img_r10: float
    r_mean: float
    pictures: int


@dataclass(frozen=True)
class RunFigures(Figures):
    """What a table of trained rows needs too."""

    test_file: str
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
class Embedded:
    """A test set's embeddings: I pictures and one caption of each."""

    pictures: np.ndarray  # [I, D]
    captions: np.ndarray  # [I, D], of each picture its first
    scenes: np.ndarray | None  # [I], names; None where the test annotation has no labels


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    seed: int
    folder: Path
    figures: RunFigures
    ranks: Ranks | None
    embedded: Embedded | None
    differing: Mapping[str, tuple[Any, Any]]  # by dotted key, what its config has and what the study's

    def own_overrides(self) -> list[str]:
        """What makes the study's config this run's."""
        return [override_of(key, own) for key, (own, _) in self.differing.items()]


AnyFigures = TypeVar("AnyFigures", bound=Figures)


def finished_runs(output_dir: Path, row: PlannedRow, *, embeddings: bool = False) -> list[Finished]:
    """A row's finished runs by seed, with their embeddings where asked for.

    Raises InputError for a damaged file and a ranks.npz of another run.
    """
    folders = [folder for folder in (output_dir / row.name).glob("seed_*") if SEED_FOLDER.fullmatch(folder.name)]
    finished = [_finished(folder, row, embeddings) for folder in folders if (folder / RESULT).exists()]
    return sorted(finished, key=lambda run: run.seed)


def finished_seeds(output_dir: Path, rows: Iterable[str]) -> list[int]:
    """The seeds that any of the rows has a result of, in order."""
    results = [file for row in rows for file in (output_dir / row).glob(f"seed_*/{RESULT}")]
    found = {match[1] for file in results if (match := SEED_FOLDER.fullmatch(file.parent.name))}
    return sorted(map(int, found))


def read_result(file: Path) -> Mapping[str, Any]:
    """The object in a result file. Raises InputError where it is damaged."""
    try:
        values = read_json(file)
        if not isinstance(values, Mapping):
            raise InputError(f"{file} is no JSON object")
        if not all(math.isfinite(value) for value in values.values() if isinstance(value, float)):
            raise InputError(f"{file}: it holds NaN or Infinity")
    except InputError as error:
        raise InputError(f"{file.name} cannot be read ({error}); remove it and run its row again") from None
    return values


def read_figures(kind: type[AnyFigures], values: Mapping[str, Any], file: Path) -> AnyFigures:
    """The figures among a result's values. Raises InputError where one is missing, of another type or no percent."""
    problems: list[str] = []
    known = {f.name for f in fields(kind)}
    read = read_fields(kind, {key: value for key, value in values.items() if key in known}, "", problems)
    if not problems and not all(0 <= read[name] <= 100 for name in FIGURES):
        problems.append("a figure is not in percent")
    if problems:
        raise InputError(f"{file}: {listed(problems)}")
    return kind(**read)


def _finished(folder: Path, row: PlannedRow, embeddings: bool) -> Finished:
    file = folder / RESULT
    values = read_result(file)
    figures = read_figures(RunFigures, values, file)
    if figures.seed != int(folder.name.removeprefix("seed_")):
        raise InputError(f"{file}: 'seed' is {figures.seed}")
    if values.get("epoch") is None:
        raise InputError(f"{file}: it is of an evaluation, not of a training")
    return Finished(
        seed=figures.seed,
        folder=folder,
        figures=figures,
        ranks=_read_ranks(folder / RANKS, figures) if (folder / RANKS).exists() else None,
        embedded=_read_embeddings(folder / EMBEDDINGS) if embeddings and (folder / EMBEDDINGS).exists() else None,
        differing=differing_from_recorded(values.get("config"), row.config, file),
    )


def _read_ranks(file: Path, figures: RunFigures) -> Ranks:
    arrays = _read_arrays(file)
    i, t = figures.pictures, figures.captions
    shapes = {"image_to_text": (i,), "text_to_image": (t,), "own_image_of_text": (t,), "images": (i,)}
    whole = {name: arrays[name] for name in shapes if name in arrays and arrays[name].shape == shapes[name]}
    numbers = [whole.get(name) for name in ("image_to_text", "text_to_image", "own_image_of_text")]
    if len(whole) < len(shapes) or any(x is None or x.dtype.kind not in "iu" or (x < 0).any() for x in numbers):
        raise InputError(f"{file} does not hold the ranks of {i} pictures and {t} captions; remove it or run again")
    if not np.array_equal(np.unique(whole["own_image_of_text"]), np.arange(i)):
        raise InputError(f"{file}: not every picture has a caption; remove it or run again")
    ranks = Ranks(**whole)
    if abs(ranks.r_mean() - figures.r_mean) > ROUNDING:
        raise InputError(f"{file} gives r_mean {ranks.r_mean():.2f}, its {RESULT} {figures.r_mean:.2f}; run again")
    return ranks


def _read_embeddings(file: Path) -> Embedded:
    arrays = _read_arrays(file)
    try:
        images, texts, own = (arrays[name] for name in ("image_embeds", "text_embeds", "own_image_of_text"))
        fits = images.ndim == texts.ndim == 2 and images.shape[1] == texts.shape[1] and own.shape == texts.shape[:1]
        pictures, first = np.unique(own, return_index=True)
        names = arrays.get("label_name", arrays.get("label"))
        if not fits or not np.array_equal(pictures, np.arange(len(images))):
            raise ValueError("its arrays do not fit together")
        if names is not None and names.shape != (len(images),):
            raise ValueError("it has not a label for each picture")
        if not (np.isfinite(images).all() and np.isfinite(texts).all()):
            raise ValueError("its embeddings are not all finite")
    except KeyError as error:
        raise InputError(f"{file} has no {error}; remove it or run again") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{file} holds no embeddings of a test set ({error}); remove it or run again") from None
    scenes = None if names is None else names.astype(str)
    return Embedded(images.astype(np.float32), texts[first].astype(np.float32), scenes)


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file; nothing in it is unpickled."""
    try:
        check_regular(file)
        with zipfile.ZipFile(file) as members:
            if sum(member.file_size for member in members.infolist()) > MOST_ARRAY_BYTES:
                raise ValueError(f"its arrays are larger than {MOST_ARRAY_BYTES:,} bytes")
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # damaged bytes can raise nearly anything inside the reader
        raise InputError(f"{file} is damaged or no .npz file ({reason(error)}); remove it or run again") from None
