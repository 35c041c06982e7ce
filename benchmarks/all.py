"""All benchmarks one after another, and one table of what they found, beside the goals.

    python benchmarks/all.py --output FOLDER [--only rank pictures] [--override precision=auto]

Writes each benchmark's JSON and picture to FOLDER, and the table as `summary.md` and `summary.json`. An override is for
the two that measure a model, `train_step` and `embed`. Take the machine for it alone: another program's work shows in
every figure.
"""

import argparse
import operator
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import machine  # noqa: E402
from utils.arguments import OneLineParser, named_path  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.files import read_json, write_whole  # noqa: E402
from utils.logs import write_json  # noqa: E402

BENCHMARKS = ("train_step", "embed", "rank", "pictures", "start_up")
OF_A_MODEL = ("train_step", "embed")
SIGNS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


class Goal(NamedTuple):
    """A figure of a benchmark and what it should be."""

    benchmark: str
    figure: str
    says: str
    sign: str  # of SIGNS
    wanted: float


GOALS = (
    Goal("train_step", "ratio_to_floor", "a training step, times the floor", "<=", 0.8),
    Goal("train_step", "peak_mb", "the most memory of a training step, MB", "<=", 5000),
    Goal("embed", "images_ratio", "pictures embedded, times the plain way's", ">=", 1.5),
    Goal("embed", "texts_ratio", "captions embedded, times the plain way's", ">=", 2.5),
    Goal("rank", "ratio", "ranks, times as fast as by sorting", ">=", 10),
    Goal("rank", "over_product", "ranks from embeddings, times the bare product", "<=", 1.5),
    Goal("start_up", "first_progress_seconds", "seconds to the first line of progress", "<=", 10),
    Goal("start_up", "help_seconds", "seconds of the slowest `--help`", "<=", 1.5),
)


def main(arguments: list[str] | None = None) -> int:
    """Run, gather, write; 1 where a benchmark failed."""
    args = parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    failed = [name for name in args.only if not run(name, args)]
    rows = summary(args.output)
    text = table(rows, machine())
    write_whole(args.output / "summary.md", text.encode())
    write_json(args.output / "summary.json", {"machine": machine(), "figures": rows, "failed": failed})
    print(text, end="")
    if failed:
        print(f"failed, their reasons stand above: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser("all.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=named_path, required=True, metavar="FOLDER", help="made where it is missing")
    add("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="these (all)")
    add("--repeats", type=int, help="of each way, in turns (each benchmark's own)")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="of the model's config; repeatable")
    add("--profile", action="store_true", help="leave traces too")
    args = parser.parse_args(arguments)
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {args.output} is a file; name a folder")
    if args.repeats is not None and args.repeats < 1:
        raise InputError("--repeats: give 1 or more")
    return args


def run(name: str, args: argparse.Namespace) -> bool:
    """Run a benchmark in a process of its own, an earlier one's figures removed; whether it ended well."""
    output = args.output / f"{name}.json"
    output.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / f"benchmarks/{name}.py"), "--output", str(output)]
    command += ["--repeats", str(args.repeats)] if args.repeats else []
    command += ["--profile"] if args.profile and name != "start_up" else []
    if name in OF_A_MODEL:
        command += [part for override in args.override for part in ("--override", override)]
    print(f"## {name}", flush=True)
    return subprocess.run(command).returncode == 0


def summary(folder: Path) -> list[dict[str, Any]]:
    """Each goal with what the benchmarks in the folder found; None where one was not run."""
    rows = []
    for goal in GOALS:
        file = folder / f"{goal.benchmark}.json"
        found = read_json(file).get(goal.figure) if file.exists() else None
        reached = None if found is None else SIGNS[goal.sign](found, goal.wanted)
        rows.append({**goal._asdict(), "found": found, "reached": reached})
    return rows


def table(rows: list[dict[str, Any]], where: dict[str, Any]) -> str:
    """The rows as Markdown, and the machine."""
    lines = ["| what | goal | found | reached |", "|---|---|---|---|"]
    for row in rows:
        found = "not run" if row["found"] is None else row["found"]
        reached = {None: "", True: "yes", False: "no"}[row["reached"]]
        lines.append(f"| {row['says']} (`{row['benchmark']}`) | {row['sign']} {row['wanted']} | {found} | {reached} |")
    flags = ", ".join(where["flags"]) or "none of the flags asked for"
    described = f"{where['processor']}, {where['cores']} cores, {flags}; torch {where['torch']}"
    return "\n".join([*lines, "", f"{described}, {where['threads']} threads", ""])


if __name__ == "__main__":
    run_cli(main)
