"""A whole training step of PIR beside the floor: what its encoders alone cost, forward and backward, written plainly.

    python benchmarks/train_step.py [--output step.json] [--override KEY=VALUE] [--grow]

Ours is the step of `Retrieval.py` with its optimizer, by its own training loop: losses, backward, AdamW, schedule. The
floor is timm's and transformers' encoders of the same config, eager in float32, and a sum of their outputs in place of
heads and losses; the frozen prior goes forward only. Weights, pictures and captions are random; all captions have
`--tokens` tokens.

Each side has a process of its own, told step by step, in turns. Ours and the floor have the environment that `run.py`
gives (`ratio_to_floor`, the median of the rounds); a third process has the floor without the launcher's settings, as a
plain script would run it (`ratio_to_plain_floor`). `peak_mb` is the most memory of our process. `--grow` repeats it all
but for the third with other batches and lengths.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.plain import plain_encoders  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    Times,
    add_model,
    in_turns,
    launched_environment,
    machine,
    own_process,
    parser_of,
    peak_mb,
    plain_environment,
    profiled,
    ratio,
    read,
    report,
    spread,
    trace_file,
)
from dataset.annotations import EvaluationSet  # noqa: E402
from dataset.loaders import TrainBatch  # noqa: E402
from models.build import build_model  # noqa: E402
from models.embedder import Embedder, pixels_of  # noqa: E402
from models.encoders import normalise  # noqa: E402
from models.retrieval_task import start_training  # noqa: E402
from utils.config import Config, config_from_dict, config_from_file  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.launch import TASKS  # noqa: E402
from utils.processes import autocast_dtype  # noqa: E402
from utils.training import Run, train_epoch  # noqa: E402

CPU, SCENES, STEPS_PER_EPOCH = torch.device("cpu"), 31, 1000
BATCHES, LENGTHS = (4, 8, 16, 32, 64), (8, 16, 32, 47)  # of --grow
OURS, FLOOR, PLAIN = "ours", "floor", "floor, plain settings"

_prepared: list[Callable[[], None]] = []  # the step of this process, once it was told which


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write where asked."""
    args = parse(arguments)
    config = configured(args, args.batch, args.tokens)
    figures, times = measure(config, args.tokens, args.repeats, plainly=True, trace=profile_of(args))
    figures |= {"batch": args.batch, "tokens": args.tokens, "config": args.config.name, "overrides": args.override}
    if args.grow:
        figures["grow"] = grow(args)
    report(args, figures, times, title=f"A training step, batch {args.batch}, {args.tokens} tokens")
    if args.grow and args.output:
        draw_growth(args.output.with_name(f"{args.output.stem}_grow.png"), figures["grow"])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of("train_step.py", __doc__, repeats=7)
    add_model(parser, ROOT / TASKS["itr_rsicd"])
    parser.add_argument("--batch", type=int, default=16, help="pictures of a batch (16)")
    parser.add_argument("--tokens", type=int, default=22, help="of each caption (22)")
    parser.add_argument("--grow", action="store_true", help=f"also batches of {BATCHES}, and {LENGTHS} tokens")
    return read(parser, arguments, "batch", "tokens")


def configured(args: argparse.Namespace, batch: int, tokens: int) -> Config:
    """The config with this batch, checked."""
    config = config_from_file(args.config, [*args.override, f"batch_size_train={batch}"])
    if tokens > (most := config.text_config["max_position_embeddings"]):
        raise InputError(f"--tokens {tokens}: the text encoder has positions for {most}")
    return config


def profile_of(args: argparse.Namespace) -> Path | None:
    """Where our step's trace goes, where one is asked for."""
    return trace_file(args, OURS).absolute() if args.profile else None


def measure(
    config: Config, tokens: int, repeats: int, *, plainly: bool, trace: Path | None = None
) -> tuple[dict[str, Any], Times]:
    """Ratios and peaks, and the seconds of each side. plainly: the floor without the launcher's settings too."""
    sides = {OURS: (our_step, launched_environment()), FLOOR: (floor_step, launched_environment())}
    if plainly:
        sides[PLAIN] = floor_step, plain_environment()
    with ExitStack() as stack:
        tell = {name: stack.enter_context(own_process(environment)) for name, (_, environment) in sides.items()}
        for name, (make, _) in sides.items():
            tell[name](prepare, make, config.to_dict(), tokens)
        times = in_turns({name: partial(tell[name], step) for name in sides}, repeats)
        figures = {"ratio_to_floor": ratio(times, OURS, FLOOR), "peak_mb": tell[OURS](peak_mb)}
        if plainly:
            figures["ratio_to_plain_floor"] = ratio(times, OURS, PLAIN)
        figures |= {"floor_peak_mb": tell[FLOOR](peak_mb), "machine": tell[OURS](machine)}
        if trace:
            print(tell[OURS](profiled, step, trace))
    return figures, times


def grow(args: argparse.Namespace) -> dict[str, dict[int, dict[str, Any]]]:
    """The figures of other batches and of other lengths, by size."""
    found: dict[str, dict[int, dict[str, Any]]] = {"batch": {}, "tokens": {}}
    sizes = [("batch", batch, batch, args.tokens) for batch in BATCHES]
    sizes += [("tokens", tokens, args.batch, tokens) for tokens in LENGTHS]
    for kind, size, batch, tokens in sizes:
        figures, times = measure(configured(args, batch, tokens), tokens, args.repeats, plainly=False)
        del figures["machine"]
        found[kind][size] = figures | {"seconds": spread(times)}
        print(f"{kind:8} {size:4} " + ", ".join(f"{n} {v}" for n, v in found[kind][size].items()), flush=True)
    return found


def draw_growth(file: Path, growth: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Median seconds of both sides over the sizes of a batch and of a caption."""
    from utils.plots import png_figure  # here, as the sides' processes have no use for matplotlib

    with png_figure(file, 8, 3, dpi=150) as figure:
        for axes, (kind, of_size) in zip(figure.subplots(1, len(growth)), growth.items(), strict=True):
            for side in (OURS, FLOOR):
                medians = [figures["seconds"][side][1] for figures in of_size.values()]
                axes.plot([*of_size], medians, marker="o", label=side)
            axes.set_xlabel(kind)
            axes.set_ylabel("seconds a step")
            axes.set_ylim(bottom=0)
            axes.legend()


# ---- in a side's own process ----


def prepare(make: Callable[[Config, int], Callable[[], None]], config: dict[str, Any], tokens: int) -> None:
    """Make this process's step, from random numbers that are the same in each."""
    torch.manual_seed(0)
    _prepared[:] = [make(config_from_dict(config), tokens)]


def step() -> None:
    """Do this process's step once."""
    _prepared[0]()


def our_step(config: Config, tokens: int) -> Callable[[], None]:
    """One pass of the training loop over a loader of one batch."""
    run = Run(config, Path(), 0, CPU, autocast_dtype(config.precision, CPU), resuming=False)
    no_words = cast(Any, None)  # the batch has token ids already
    embedder = Embedder(build_model(config), config, no_words, CPU, run.autocast, pixels_of)
    task, state = start_training(run, embedder, STEPS_PER_EPOCH, EvaluationSet((), (), [], None))
    loader = OneBatch(random_batch(config, tokens))

    def train() -> None:
        with redirect_stderr(io.StringIO()):  # the progress of an epoch
            train_epoch(task, state, loader, 0, 1)

    return train


def floor_step(config: Config, tokens: int) -> Callable[[], None]:
    """The encoders alone, on the same batch."""
    encoders = plain_encoders(config)
    encoders.train(config)
    batch = random_batch(config, tokens)
    images, ids = normalise(batch.images), batch.ids
    return lambda: encoders.step(config, images, ids)


def random_batch(config: Config, tokens: int) -> TrainBatch:
    """Pictures and captions of noise, all with the same number of tokens."""
    count, captions = config.batch_size_train, config.batch_size_train * config.captions_per_image
    idx = torch.arange(count).repeat_interleave(config.captions_per_image)
    ids = torch.randint(config.text_config["vocab_size"], (captions, tokens))
    return TrainBatch(
        torch.randint(256, (count, 3, config.image_res, config.image_res), dtype=torch.uint8),
        ids,
        torch.ones_like(ids),
        idx,
        idx % SCENES,
        ["noise"] * captions,
        torch.arange(captions),
    )


class OneBatch:
    """A loader that has one batch an epoch, always the same."""

    def __init__(self, batch: TrainBatch) -> None:
        self.batch, self.batch_size = batch, len(batch.images)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[TrainBatch]:
        return iter([self.batch])

    def set_epoch(self, epoch: int) -> None:
        """Each is alike."""


if __name__ == "__main__":
    run_cli(main)
