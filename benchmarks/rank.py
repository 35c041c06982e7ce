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
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.side_by_side import (  # noqa: E402
    Times,
    in_turns,
    own_process,
    parser_of,
    peak_mb,
    profiled,
    ratio,
    read,
    report,
    trace_file,
)
from utils.errors import run_cli  # noqa: E402
from utils.metrics import retrieval_metrics, retrieval_ranks  # noqa: E402

CAPTIONS = 5  # a picture
ROWS = 512  # of the bare product held at once


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write where asked."""
    args = parse(arguments)
    with own_process(os.environ) as call:  # counting alone, for its memory
        peak = call(counted_peak_mb, args.pictures, args.dim)
    figures, times = measure(args.pictures, args.dim, args.repeats, by_sorting=args.pictures <= args.sorted_up_to)
    if args.profile:
        ranked = embeddings(args.pictures, args.dim)
        print(profiled(lambda: retrieval_ranks(*ranked), trace_file(args, "ranks")))
    report(args, figures | {"peak_mb": peak}, times, title=f"Ranks of {args.pictures} pictures, five captions each")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of("rank.py", __doc__, repeats=5)
    add = parser.add_argument
    add("--pictures", type=int, default=1093, help="with five captions each (1093, as RSICD's test split)")
    add("--dim", type=int, default=512, help="numbers of an embedding (512)")
    add("--sorted_up_to", type=int, default=5000, metavar="PICTURES", help="with more, sorting is left out (5000)")
    return read(parser, arguments, "pictures", "dim")


def measure(pictures: int, dim: int, repeats: int, *, by_sorting: bool) -> tuple[dict[str, Any], Times]:
    """The ratios, and the seconds of each way."""
    images, texts, own = embeddings(pictures, dim)
    ways: dict[str, Callable[[], Any]] = {
        "product": lambda: product(images, texts),
        "ranks": lambda: retrieval_ranks(images, texts, own),
    }
    if by_sorting:
        scores, of_text = images @ texts.T, np.array(own)
        ways["sorting"] = lambda: sorted_ranks(scores.numpy(), of_text)
        ways["counting"] = lambda: retrieval_metrics(scores, own)
    times = in_turns(ways, repeats)
    figures: dict[str, Any] = {"pictures": pictures, "captions": len(texts), "dim": dim}
    if by_sorting:
        figures["ratio"] = ratio(times, "sorting", "counting")
    return figures | {"over_product": ratio(times, "ranks", "product")}, times


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
    return peak_mb()


if __name__ == "__main__":
    run_cli(main)
