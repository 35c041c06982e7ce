"""Ranks of an evaluation, by sorting every row and by counting, and beside the matrix product that both need.

    python benchmarks/rank.py
    python benchmarks/rank.py --pictures 20000 --sorted_up_to 0 --repeats 1

Random unit embeddings, five captions a picture. In turns, `--repeats` times: the ranks of given scores by sorting and
by counting (`utils.metrics.retrieval_metrics`), both left out above `--sorted_up_to` pictures, where sorting takes
minutes; the bare product of the embeddings in blocks of rows; the ranks from the embeddings (`retrieval_ranks`). Prints
of each the least, median and greatest seconds, how many times as fast counting is as sorting (`ratio`), how many times
the bare product the ranks from embeddings take (`over_product`), and the most memory of a process that does that alone.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from utils.arguments import OneLineParser, named_path  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.logs import write_json  # noqa: E402
from utils.memory import peak_bytes  # noqa: E402
from utils.metrics import retrieval_metrics, retrieval_ranks  # noqa: E402

CAPTIONS = 5  # a picture
ROWS = 512  # of the bare product held at once


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write where asked."""
    args = parse(arguments)
    with multiprocessing.get_context("spawn").Pool(1) as process:  # counting alone, for its memory
        peak_mb = process.apply(counted_peak_mb, (args.pictures, args.dim))
    figures = measure(args.pictures, args.dim, args.repeats, by_sorting=args.pictures <= args.sorted_up_to)
    figures |= {"peak_mb": peak_mb}
    for name, value in figures.items():
        print(f"{name:12} {value}")
    if args.output:
        write_json(args.output, figures)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser("rank.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", type=int, default=1093, help="with five captions each (1093, as RSICD's test split)")
    add("--dim", type=int, default=512, help="numbers of an embedding (512)")
    add("--repeats", type=int, default=5, help="of each way, in turns (5)")
    add("--sorted_up_to", type=int, default=5000, metavar="PICTURES", help="with more, sorting is left out (5000)")
    add("--output", type=named_path, metavar="FILE", help="write the figures as JSON")
    args = parser.parse_args(arguments)
    if min(args.pictures, args.dim, args.repeats) < 1:
        raise InputError("--pictures, --dim and --repeats: give 1 or more")
    if args.output and not args.output.parent.is_dir():
        raise InputError(f"--output {args.output}: there is no folder {args.output.parent}")
    return args


def measure(pictures: int, dim: int, repeats: int, *, by_sorting: bool) -> dict[str, Any]:
    """Seconds of each way as [least, median, greatest], and their ratios."""
    images, texts, own = embeddings(pictures, dim)
    ways: dict[str, Callable[[], Any]] = {
        "product": lambda: product(images, texts),
        "ranks": lambda: retrieval_ranks(images, texts, own),
    }
    if by_sorting:
        scores, of_text = images @ texts.T, np.array(own)
        ways["sorting"] = lambda: sorted_ranks(scores.numpy(), of_text)
        ways["counting"] = lambda: retrieval_metrics(scores, own)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    median = {name: statistics.median(of) for name, of in times.items()}
    figures: dict[str, Any] = {"pictures": pictures, "captions": len(texts), "dim": dim}
    figures |= {name: [round(x, 4) for x in (min(of), median[name], max(of))] for name, of in times.items()}
    if by_sorting:
        figures["ratio"] = round(median["sorting"] / median["counting"], 2)
    return figures | {"over_product": round(median["ranks"] / median["product"], 2)}


def embeddings(pictures: int, dim: int) -> tuple[Tensor, Tensor, list[int]]:
    """Unit vectors `[I, D]` and `[T, D]`, a caption near its picture, and each caption's picture."""
    torch.manual_seed(0)
    images = F.normalize(torch.randn(pictures, dim), dim=1)
    own = torch.arange(pictures).repeat_interleave(CAPTIONS)
    return images, F.normalize(images[own] + 3 * F.normalize(torch.randn(len(own), dim), dim=1), dim=1), own.tolist()


def product(images: Tensor, texts: Tensor) -> None:
    """All similarities, each computed once and thrown away."""
    for rows in images.split(ROWS):
        rows @ texts.T


def sorted_ranks(scores: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks as one writes them down: sort each row, look for one's own. scores `[I, T]`."""
    of_pictures, of_texts = np.empty(len(scores)), np.empty(len(own))
    for picture, row in enumerate(scores):
        places = np.argsort(row)[::-1]
        of_pictures[picture] = min(np.where(places == text)[0][0] for text in np.where(own == picture)[0])
    for text, row in enumerate(scores.T):
        of_texts[text] = np.where(np.argsort(row)[::-1] == own[text])[0][0]
    return of_pictures, of_texts


def counted_peak_mb(pictures: int, dim: int) -> int:
    """The most memory of a process that makes the embeddings and counts, in MB."""
    retrieval_ranks(*embeddings(pictures, dim))
    return round(peak_bytes() / 1e6)


if __name__ == "__main__":
    run_cli(main)
