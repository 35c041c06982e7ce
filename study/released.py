"""Released checkpoints: each evaluated through run.py, then set beside its published row, with its training's log."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.plan import FIGURES
from study.published import Match, match
from study.released_report import CURVES, Row, write_report
from study.training_logs import LogToDraw, draw_logs, read_log
from utils import output
from utils.config import Config, config_from_dict, config_from_file
from utils.errors import InputError
from utils.files import file_checksum
from utils.launch import STOPPING, processes_for, run_to_end, shell_line

RUN = Path(__file__).resolve().parents[1] / "run.py"


@dataclass(frozen=True)
class Checkpoint:
    """A folder as published, and where its result goes."""

    name: str
    folder: Path
    output_dir: Path

    def command(self, dist: str, overrides: Sequence[str]) -> list[str]:
        """run.py's command line; the task only names the program, the folder brings its config."""
        command = [sys.executable, str(RUN), "--task", "itr_rsicd", "--dist", dist, "--evaluate"]
        command += ["--checkpoint", str(self.folder), "--output_dir", str(self.output_dir)]
        # An evaluation that was cut may have left a part of its files; without a result they count for nothing.
        command.append("--overwrite")
        return command + [part for override in overrides for part in ("--override", override)]


def evaluate_released(folder: Path, output_dir: Path, dist: str, overrides: list[str], dry_run: bool) -> int:
    """Evaluate every checkpoint folder below `folder` into `output_dir`/its name, then write the report there.

    One with a result is not measured again, one that fails does not stop the others. dry_run: only print the
    commands. Returns the exit code: 1 where one failed, 128 + N when signal N ended it.
    """
    checkpoints, incomplete = find_checkpoints(folder, output_dir)
    for note in incomplete:
        print(f"left aside: {note}", file=sys.stderr)
    processes_for(dist, check_cards=not dry_run)
    if not dry_run:
        output.open_output(output_dir)
    failed: dict[str, str] = {}
    stopped = 0
    for number, checkpoint in enumerate(checkpoints, 1):
        place = f"{number} of {len(checkpoints)}: {checkpoint.name}"
        try:
            if measured(checkpoint, overrides):
                print(f"{place} is measured already", file=sys.stderr, flush=True)
                continue
        except InputError as error:
            failed[checkpoint.name] = str(error)
            continue
        command = checkpoint.command(dist, overrides)
        if dry_run:
            print(shell_line(command, {}))
            continue
        print(place, file=sys.stderr, flush=True)
        code = run_to_end(command, {})
        if code - 128 in STOPPING:
            stopped = code
            break
        if code:
            failed[checkpoint.name] = f"exit code {code}, the run printed its reason"
    if not dry_run:
        report(checkpoints, output_dir, dist, overrides, failed, incomplete)
    for name, problem in failed.items():
        print(f"failed: {name}: {problem}", file=sys.stderr)
    return stopped or int(bool(failed))


def find_checkpoints(folder: Path, output_dir: Path) -> tuple[list[Checkpoint], list[str]]:
    """Every folder at or below `folder` that holds weights and their config, by name; what has weights alone.

    Raises InputError where there is none, and where a result would go into one of the folders themselves.
    """
    if not folder.is_dir():
        raise InputError(f"--released {folder} is no folder; name one with checkpoints as published")
    with_weights = [each for each in _folders(folder) if (each / output.BEST).is_file()]
    folders = [each for each in with_weights if (each / output.CONFIG).is_file()]
    incomplete = [f"{each / output.BEST} without its {output.CONFIG}" for each in with_weights if each not in folders]
    if not folders:
        without = f", but {incomplete[0]}" if incomplete else ""
        raise InputError(
            f"below {folder} is no folder with {output.BEST} and {output.CONFIG}{without}; "
            "checkpoints/README.md says how a checkpoint is laid out"
        )
    start = Path(folder.resolve().name if folder in folders else "")  # a checkpoint's own folder keeps its name
    names = [(start / each.relative_to(folder)).as_posix() for each in folders]
    checkpoints = [Checkpoint(name, each, output_dir / name) for name, each in zip(names, folders, strict=True)]
    own = {each.resolve() for each in folders}
    for checkpoint in checkpoints:
        if checkpoint.output_dir.resolve() in own:
            raise InputError(
                f"the result of {checkpoint.name} would go into {checkpoint.output_dir}, which holds a checkpoint "
                "itself; give another --output_dir"
            )
    return checkpoints, incomplete


def _folders(folder: Path) -> Iterator[Path]:
    """`folder` and all below it by name, behind links too, each once."""
    seen = set()
    for name, below, _ in os.walk(folder, followlinks=True):
        place = os.path.realpath(name)
        if place in seen:
            below.clear()
            continue
        seen.add(place)
        below.sort()
        yield Path(name)


def measured(checkpoint: Checkpoint, overrides: Sequence[str]) -> dict[str, Any] | None:
    """The checkpoint's result; None where there is none yet, or one of other weights.

    Raises InputError for a config that is wrong and for a result that is none or of another config.
    """
    config = config_from_file(checkpoint.folder / output.CONFIG, list(overrides))
    file = checkpoint.output_dir / output.RESULT
    if not file.exists():
        return None
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        recorded = config_from_dict(result["config"])
        if not isinstance(result["pictures"], int) or not all(math.isfinite(result[name]) for name in FIGURES):
            raise ValueError
    except (OSError, ValueError, RecursionError, KeyError, TypeError, InputError):
        raise InputError(f"{file} is no result of an evaluation; remove it, then it is measured again") from None
    if result.get("weights_sha256") != file_checksum(checkpoint.folder / output.BEST):
        return None
    if other := _differing(config, recorded):
        raise InputError(f"{file} was measured with another {other}; remove it, then it is measured again")
    return result


def _differing(config: Config, recorded: Config) -> str:
    """The first key in which two configs differ, with both values; empty where none does."""
    ours, theirs = config.to_dict(), recorded.to_dict()
    compared = [key for key in ours if key != "num_workers"]  # which changes no figure
    return next((f"{key} ({theirs[key]}, now {ours[key]})" for key in compared if ours[key] != theirs[key]), "")


def report(
    checkpoints: Sequence[Checkpoint],
    output_dir: Path,
    dist: str,
    overrides: Sequence[str],
    failed: Mapping[str, str],
    incomplete: Sequence[str],
) -> None:
    """Write the curves and the tables of what is measured so far."""
    rows, logs, notes = [], [], [f"left aside: {note}" for note in incomplete]
    for checkpoint in checkpoints:
        row = _row(checkpoint, dist, overrides, failed.get(checkpoint.name, ""))
        rows.append(row)
        log = checkpoint.folder / output.LOG
        if log.is_file():
            read = read_log(log)
            logs.append(LogToDraw(row.name, read, row.match.figures["r_mean"] if row.match.figures else None))
            if read.skipped:
                notes.append(f"{log}: {read.skipped} line{'s' * (read.skipped > 1)} left aside, no JSON of an epoch")
    if logs:
        draw_logs(output_dir / CURVES, logs)
    write_report(output_dir, rows, notes)
    print(f"tables in {output_dir}", file=sys.stderr)


def _row(checkpoint: Checkpoint, dist: str, overrides: Sequence[str], problem: str) -> Row:
    command = shell_line(checkpoint.command(dist, overrides), {})
    try:
        own = config_from_file(checkpoint.folder / output.CONFIG)  # what it was trained as
        now = config_from_file(checkpoint.folder / output.CONFIG, list(overrides))  # what it is measured as
        result = measured(checkpoint, overrides)
    except InputError as error:
        return Row(checkpoint.name, command, Match(), None, problem or str(error))
    pictures = result["pictures"] if result else None
    found = match(own, now.test_file, pictures)
    if found.figures:  # an override can make another method of it
        found = match(now, now.test_file, pictures)
    return Row(checkpoint.name, command, found, {name: result[name] for name in FIGURES} if result else None, problem)
