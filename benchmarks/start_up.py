"""Seconds from a command to what it says first: `run.py` to its first progress, and `--help` of each script.

    python benchmarks/start_up.py [--output start_up.json] [--config FILE] [--override KEY=VALUE]

The training is of the demonstration's config, or another, on `--pictures` drawn JPEGs with five captions each, there
before the clock starts. Its first progress is the line `epoch 1/N: 1/M` after the first step; it is then ended.
`help_seconds` is the median of the slowest script's. The disk's cache is warm: a first round is not counted.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import add_model, in_turns, parser_of, read, report  # noqa: E402
from dataset.drawn.scenes import draw_scenes  # noqa: E402
from utils.config import config_from_file  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.launch import TASKS  # noqa: E402

SCRIPTS = ("run.py", "Retrieval.py", "Prepare.py", "Search.py", "Tables.py", "Export.py")
FIRST = re.compile(r"^epoch 1/\d+: ")  # a line of progress
HELD_OUT = 20  # pictures of val and of test


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write where asked."""
    args = parse(arguments)
    with TemporaryDirectory() as folder:
        data = Path(folder, "data")
        draw_scenes(data, train=args.pictures, val=HELD_OUT, test=HELD_OUT)
        overrides = [*of_data(data), *args.override]
        config_from_file(args.config, overrides)  # what is wrong there is told before anything starts
        training = training_command(args.config, Path(folder, "run"), overrides)
        running: list[subprocess.Popen[str]] = []
        ways: dict[str, Callable[[], None]] = {"first progress": lambda: running.append(at_progress(training))}
        ways |= {f"{script} --help": partial(help_of, script) for script in SCRIPTS}
        times = in_turns(ways, args.repeats, after=lambda: end(running))
    figures = {
        "first_progress_seconds": round(median(times["first progress"]), 2),
        "help_seconds": round(max(median(times[f"{script} --help"]) for script in SCRIPTS), 2),
        "pictures": args.pictures,
        "config": args.config.name,
        "overrides": args.override,
    }
    report(args, figures, times, title="From the command to what it says first")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of("start_up.py", __doc__, repeats=5, profile=False)
    add_model(parser, ROOT / TASKS["itr_demo"])
    parser.add_argument("--pictures", type=int, default=1000, help="of the training (1000)")
    return read(parser, arguments, "pictures")


def of_data(folder: Path) -> list[str]:
    """The overrides by which any config trains on drawn scenes."""
    files = {split: folder / f"scenes_{split}.json" for split in ("train", "val", "test")}
    named = [f"train_file={files['train']}", f"val_file={files['val']}", f"test_file={files['test']}"]
    return ["scenes=null", *named, f"image_root={folder}", f"tokenizer={folder}"]


def training_command(config: Path, output: Path, overrides: list[str]) -> list[str]:
    """A whole training of that config by `run.py`, on the CPU."""
    command = [sys.executable, str(ROOT / "run.py"), "--task", "itr_demo", "--dist", "cpu", "--overwrite"]
    command += ["--config", str(config), "--output_dir", str(output)]
    return command + [part for override in overrides for part in ("--override", override)]


def at_progress(command: list[str]) -> "subprocess.Popen[str]":
    """A training that has said its first line of progress. Raises InputError where it ends before that."""
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.stdout is not None
    wrong = "it said nothing"
    for line in run.stdout:
        if FIRST.match(line):
            return run
        if line.startswith("error"):
            wrong = line.strip()
    run.wait()
    raise InputError(f"the training ended before its first step: {wrong}")


def end(running: "list[subprocess.Popen[str]]") -> None:
    """End trainings, with all that they started."""
    while running:
        run = running.pop()
        run.terminate()
        run.communicate()


def help_of(script: str) -> None:
    """Ask a script for its arguments."""
    subprocess.run([sys.executable, str(ROOT / script), "--help"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    run_cli(main)
