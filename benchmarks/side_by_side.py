"""What the benchmarks share: ways measured in turns, then printed, written, drawn and profiled."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from operator import truediv
from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile as torch_profile

from utils.arguments import OneLineParser, named_path
from utils.errors import InputError
from utils.launch import CPU_SETTINGS, processes_for
from utils.logs import write_json
from utils.memory import peak_bytes

Times = dict[str, list[float]]  # of each way, one a round
FLAGS = ("avx2", "avx512_bf16", "amx_bf16")  # of a processor, that decide how fast a step is


def parser_of(script: str, description: str | None, *, repeats: int, profile: bool = True) -> argparse.ArgumentParser:
    """A parser of the arguments that all have; a script adds its own. profile: whether torch has something to see."""
    parser = OneLineParser(script, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(script=script)
    add = parser.add_argument
    add("--repeats", type=int, default=repeats, help=f"of each way, in turns ({repeats})")
    add("--output", type=named_path, metavar="FILE.json", help="write the figures there, and beside them a picture")
    if profile:
        add("--profile", action="store_true", help="leave a trace of torch's profiler beside --output, or here")
    return parser


def add_model(parser: argparse.ArgumentParser, config: Path) -> None:
    """Which model is measured: `--config` and `--override`."""
    parser.add_argument("--config", type=named_path, default=config, help=f"of the model ({config.name})")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="repeatable")


def read(parser: argparse.ArgumentParser, arguments: list[str] | None, *counts: str) -> argparse.Namespace:
    """The command line; `counts` are the arguments beside `--repeats` that must be 1 or more."""
    args = parser.parse_args(arguments)
    names = [*counts, "repeats"]
    if any(getattr(args, name) < 1 for name in names):
        raise InputError(f"{', '.join(f'--{name}' for name in names)}: give 1 or more")
    if args.output and args.output.suffix != ".json":
        raise InputError(f"--output {args.output}: name a file that ends in .json, its picture then in .png")
    if args.output and not args.output.parent.is_dir():
        raise InputError(f"--output {args.output}: there is no folder {args.output.parent}")
    return args


# ---- measuring ----


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    after: Callable[[], None] = lambda: None,
) -> Times:
    """The seconds of each way in each of `repeats` rounds, by `clock`; one round before them warms up.

    after: called when a way's time was taken, to clear up what it left.
    """
    times: Times = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if number:
                times[name].append(clock() - started)
            after()
    return times


def ratio(times: Times, of: str, over: str) -> float:
    """How many times as long `of` takes as `over`: the median over the rounds."""
    return round(statistics.median(map(truediv, times[of], times[over])), 3)


def spread(times: Times) -> dict[str, list[float]]:
    """The least, median and greatest time of each way, to four digits."""
    return {name: [float(f"{x:.4g}") for x in (min(of), statistics.median(of), max(of))] for name, of in times.items()}


@contextmanager
def own_process(environment: Mapping[str, str]) -> Iterator[Callable[..., Any]]:
    """`call(function, *arguments)` of a process of its own, which was started with this environment and no other."""
    ours = dict(os.environ)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            os.environ.clear()
            os.environ.update(environment)
            pool.submit(os.getpid).result()  # which starts it
        finally:
            os.environ.clear()
            os.environ.update(ours)
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def launched_environment() -> dict[str, str]:
    """What `run.py --dist cpu` gives the one process that it starts."""
    return os.environ | processes_for("cpu").environment


def plain_environment() -> dict[str, str]:
    """The same without the settings that are only the launcher's: as who starts a script of their own."""
    return {name: value for name, value in launched_environment().items() if name not in CPU_SETTINGS}


def peak_mb() -> int:
    """The most memory that this process has had, in MB."""
    return round(peak_bytes() / 1e6)


def machine() -> dict[str, Any]:
    """The processor, what it can do, and how much of it this process uses."""
    has = torch.cpu.get_capabilities()
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in FLAGS if has.get(flag)],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


# ---- what was measured ----


def report(
    args: argparse.Namespace, figures: Mapping[str, Any], times: Times, *, title: str, unit: str = "seconds"
) -> None:
    """Print the figures and, where asked, write them as JSON and draw the times."""
    spreads = spread(times)
    for name, (least, median, greatest) in spreads.items():
        print(f"{name:28} {median:10.4g} {unit} ({least:.4g} to {greatest:.4g})")
    for name, value in figures.items():
        if not isinstance(value, dict):
            print(f"{name:28} {value}")
    if args.output:
        write_json(args.output, {"machine": machine(), **figures, "repeats": args.repeats, unit: spreads})
        draw_bars(args.output.with_suffix(".png"), spreads, f"{title}: {unit}, median, least and greatest")


def draw_bars(file: Path, spreads: Mapping[str, list[float]], title: str) -> None:
    """A bar a way, as long as its median, with a line from the least to the greatest."""
    from utils.plots import png_figure  # here, as a process whose memory is measured has no use for matplotlib

    names, medians = [*spreads], [median for _, median, _ in spreads.values()]
    below = [median - least for least, median, _ in spreads.values()]
    above = [greatest - median for _, median, greatest in spreads.values()]
    with png_figure(file, 7, 1 + 0.35 * len(names), dpi=150) as figure:
        axes = figure.add_subplot()
        axes.barh(names, medians, xerr=[below, above], color="#5b8db8", capsize=3)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)


def trace_file(args: argparse.Namespace, name: str) -> Path:
    """Where the trace of a way goes: beside `--output`, else in the current folder."""
    beside = args.output.with_suffix("") if args.output else Path(args.script).with_suffix("")
    return beside.with_name(f"{beside.name}_{name}.trace.json")


def profiled(way: Callable[[], object], file: Path) -> str:
    """Do it once under torch's profiler, leave the trace, and give the ten operators that took longest as a table."""
    with torch_profile() as profiler:
        way()
    profiler.export_chrome_trace(str(file))
    table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40)
    return f"{table}\n{file}: open it in chrome://tracing or ui.perfetto.dev"
