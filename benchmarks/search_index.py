"""Queries on an index of random unit vectors: time, recall against exact search, memory, and how long it takes to make.

    python benchmarks/search_index.py [--output figures.json] [--rows N ...] [--dims D ...] [--folder FOLDER]

Random vectors have no clusters, which is the hardest case for an approximate search. Making the index, searching it and
the exact search by NumPy each have a process of their own, of which the peak of memory is told. A query is the median
of 50, after 5 to warm up, asked through `search.table.Index` in a program that has it open.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy import ndarray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from search.columns import Row  # noqa: E402
from search.items import PictureFile, Tile, Tiling  # noqa: E402
from search.table import About, create, open_index  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.logs import write_json  # noqa: E402
from utils.memory import peak_bytes  # noqa: E402

BATCH, QUERIES, WARM, TOP = 20_000, 50, 5, 10


def main() -> None:
    """Measure each number of rows and dimension, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON to write the figures to")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], metavar="N")
    parser.add_argument("--dims", type=int, nargs="+", default=[256, 512], metavar="D")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where the indexes are made, then removed")
    args = parser.parse_args()
    if min(args.rows) < TOP or min(args.dims) < 2:
        raise InputError(f"--rows and --dims: give {TOP} rows and 2 dimensions, or more")
    if args.output and not args.output.parent.is_dir():
        raise InputError(f"--output {args.output}: there is no folder {args.output.parent}")
    figures = []
    for rows in args.rows:
        for dim in args.dims:
            with TemporaryDirectory(dir=args.folder) as folder:
                figures.append({"rows": rows, "dim": dim} | measure(str(Path(folder, "index")), rows, dim))
            print("  ".join(f"{name} {value}" for name, value in figures[-1].items()), flush=True)
    if args.output:
        write_json(args.output, figures)


def measure(uri: str, rows: int, dim: int) -> dict[str, Any]:
    """The figures of an index of so many vectors."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as process:
        made = process.submit(make, uri, rows, dim).result()
        searched, found = process.submit(search, uri, dim).result()
        exact = process.submit(exact_search, rows, dim).result()
    shared = sum(len(set(few) & set(best)) for few, best in zip(found, exact, strict=True))
    return made | searched | {"recall_at_10": round(shared / (TOP * QUERIES), 4)}


def make(uri: str, rows: int, dim: int) -> dict[str, Any]:
    """Make an index, each row's number in its path."""
    started = time.perf_counter()
    index = create(uri, About("0" * 64, "random", dim, Tiling()))
    for first, vectors in batches(rows, dim):
        files = [PictureFile(f"/random/{first + i}", 0, 0) for i in range(len(vectors))]
        index.add([Row(file, Tile((0, 0, 224, 224), True, None), None) for file in files], vectors)
    added = time.perf_counter()
    index.finish()
    return {
        "add_seconds": round(added - started, 1),
        "finish_seconds": round(time.perf_counter() - added, 1),
        "own_recall": index.about.recall,
        "finish_peak_gb": peak_gb(),
    }


def search(uri: str, dim: int) -> tuple[dict[str, Any], list[list[int]]]:
    """The time of a query, and the rows that each query finds."""
    started = time.perf_counter()
    index = open_index(uri)
    opened = time.perf_counter() - started
    milliseconds, found = [], []
    asked = queries(dim)
    for number, vector in enumerate([*asked[:WARM], *asked]):
        before = time.perf_counter()
        hits = index.nearest(vector, TOP)
        if number >= WARM:
            milliseconds.append((time.perf_counter() - before) * 1e3)
            found.append([int(path.rsplit("/")[-1]) for path in hits["path"].to_pylist()])
    figures = {
        "open_seconds": round(opened, 2),
        "query_ms": round(statistics.median(milliseconds), 1),
        "slowest_ms": round(max(milliseconds), 1),
        "query_peak_gb": peak_gb(),
    }
    return figures, found


def exact_search(rows: int, dim: int) -> list[list[int]]:
    """The rows nearest to each query by NumPy, the best first."""
    asked = queries(dim)
    scores, numbers = np.empty((QUERIES, 0), np.float32), np.empty((QUERIES, 0), int)
    for first, vectors in batches(rows, dim):
        scores = np.concatenate([scores, asked @ vectors.T], axis=1)
        numbers = np.concatenate([numbers, np.tile(np.arange(first, first + len(vectors)), (QUERIES, 1))], axis=1)
        best = np.argsort(-scores, axis=1)[:, :TOP]
        scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    return numbers.tolist()


def batches(rows: int, dim: int) -> Iterator[tuple[int, ndarray]]:
    """The number of the first row and the unit vectors of each batch, always the same."""
    for first in range(0, rows, BATCH):
        yield first, units(np.random.default_rng([1, first]), min(BATCH, rows - first), dim)


def queries(dim: int) -> ndarray:
    """The unit vectors to look for, `[QUERIES, dim]`."""
    return units(np.random.default_rng(0), QUERIES, dim)


def units(random: np.random.Generator, count: int, dim: int) -> ndarray:
    """Random unit vectors, float32 `[count, dim]`."""
    vectors = random.standard_normal((count, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peak_gb() -> float:
    """The most memory that this process has had, in GB."""
    return round(peak_bytes() / 1e9, 2)


if __name__ == "__main__":
    run_cli(main)
