"""Released checkpoints: each evaluated through run.py, then a row of a table with its published numbers and its log."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study import runs
from study.compared import differing_from_recorded
from study.page import Line, Page, Table, write_page
from study.plan import FIGURES
from study.plots import LogToDraw, draw_logs
from study.published import Match, match, read_published
from study.results import Figures, read_figures, read_result
from study.summary import Summary
from study.tables import HEADINGS, MEASURED, PUBLISHED, cells
from study.training_logs import read_log
from utils import output
from utils.config import config_from_file
from utils.errors import InputError
from utils.files import file_checksum
from utils.launch import STOPPING, processes_for, run_to_end, shell_line


@dataclass(frozen=True)
class Checkpoint:
    """A folder as published, and where its result goes."""

    name: str
    folder: Path
    output_dir: Path

    def command(self, dist: str, overrides: Sequence[str]) -> list[str]:
        """run.py's command line; the task only names the program, the folder brings its config."""
        command = [sys.executable, str(runs.PROGRAM), "--task", "itr_rsicd", "--dist", dist, "--evaluate"]
        command += ["--checkpoint", str(self.folder), "--output_dir", str(self.output_dir)]
        # An evaluation that was cut may have left a part of its files; without a result they count for nothing.
        return [*command, "--overwrite", *runs.override_arguments(overrides)]


def evaluate_released(folder: Path, output_dir: Path, dist: str, overrides: list[str], dry_run: bool) -> int:
    """Evaluate every checkpoint folder below `folder` into `output_dir`/its name, then write the report there.

    One with a result is not measured again, one that fails does not stop the others. dry_run: only print the
    commands. Returns the exit code: 1 where one failed, 128 + N when signal N ended it.
    """
    checkpoints, incomplete = find_checkpoints(folder, output_dir)
    for note in incomplete:
        print(note, file=sys.stderr)
    processes_for(dist, check_cards=not dry_run)
    commands = [shell_line(checkpoint.command(dist, overrides), {}) for checkpoint in checkpoints]
    if dry_run:
        print("\n".join(commands))
        return 0
    output.open_output(output_dir)
    failed: dict[str, str] = {}
    stopped = 0
    for number, checkpoint in enumerate(checkpoints, 1):
        place = f"{number} of {len(checkpoints)}: {checkpoint.name}"
        try:
            if measured(checkpoint, overrides):
                print(f"{place} is measured already", file=sys.stderr, flush=True)
                continue
            print(place, file=sys.stderr, flush=True)
            code = run_to_end(checkpoint.command(dist, overrides), {})
            if code - 128 in STOPPING:
                stopped = code
                break
            if code:
                raise InputError(f"exit code {code}, the run printed its reason")
        except InputError as error:
            failed[checkpoint.name] = str(error)
    write_page(output_dir, "released", _page(checkpoints, output_dir, overrides, failed, incomplete, commands))
    print(f"tables in {output_dir}", file=sys.stderr)
    for name, problem in failed.items():
        print(f"failed: {name}: {problem}", file=sys.stderr)
    return stopped or int(bool(failed))


def find_checkpoints(folder: Path, output_dir: Path) -> tuple[list[Checkpoint], list[str]]:
    """Every folder at or below `folder` that holds weights and their config, by name; notes on weights alone.

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
    return checkpoints, [f"left aside: {each}" for each in incomplete]


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


def measured(checkpoint: Checkpoint, overrides: Sequence[str]) -> Figures | None:
    """The checkpoint's result; None where there is none yet, or one of other weights.

    Raises InputError for a config that is wrong and for a result that is none or of another config.
    """
    config = config_from_file(checkpoint.folder / output.CONFIG, list(overrides))
    file = checkpoint.output_dir / output.RESULT
    if not file.exists():
        return None
    try:
        result = read_result(file)
        figures = read_figures(Figures, result, file)
        differing = differing_from_recorded(result.get("config"), config, file)
    except InputError:
        raise InputError(f"{file} is no result of an evaluation; remove it, then it is measured again") from None
    if result.get("weights_sha256") != file_checksum(checkpoint.folder / output.BEST):
        return None
    if differing:
        changed = ", ".join(f"{key} ({then}, now {now})" for key, (then, now) in differing.items())
        raise InputError(f"{file} was measured with another {changed}; remove it, then it is measured again")
    return figures


def _page(
    checkpoints: Sequence[Checkpoint],
    output_dir: Path,
    overrides: Sequence[str],
    failed: Mapping[str, str],
    incomplete: Sequence[str],
    commands: Sequence[str],
) -> Page:
    """The table of what is measured so far, and the curves of the logs."""
    source = read_published().source
    notes = [
        "Measured: on this machine, by the commands below, from the checkpoints and the test annotation files that "
        "their configs name. Recall and mean in percent.",
        f"Published: {source}, not measured here. A checkpoint's row is chosen by its config and the name and size of "
        "its test set, not by its folder's name; where these fit no row, no published number is given. "
        "Difference: measured minus published.",
    ]
    lines, values, logs, notes_of_logs = [], [], [], []
    for checkpoint in checkpoints:
        row, found, problem = _row(checkpoint, overrides, failed.get(checkpoint.name, ""))
        remark = problem or (f"no published number: {found.note}" if found.note else "")
        lines += _lines(row, found, MEASURED if row.means else "failed" if problem else "not measured")
        values.append(_values(row, found, remark))
        notes += [f"{row.name}: {remark}"] if remark else []
        log = checkpoint.folder / output.LOG
        if log.is_file():
            read = read_log(log)
            logs.append(LogToDraw(row.name, read, row.published.get("r_mean")))
            if read.skipped:
                s = "s" * (read.skipped > 1)
                notes_of_logs.append(f"{log}: {read.skipped} line{s} left aside, no JSON of an epoch")
    curves = output_dir / "curves.png"
    if logs:
        draw_logs(curves, logs)
    table = Table(("checkpoint", "data set", "method", "", *HEADINGS), tuple(lines), names=4)
    notes += [*incomplete, *notes_of_logs]
    return Page("Released checkpoints", [table], values, notes, commands, [curves] if logs else [])


def _row(checkpoint: Checkpoint, overrides: Sequence[str], problem: str) -> tuple[Summary, Match, str]:
    """A checkpoint's row, what it is in the paper's terms, and why it is not measured."""
    config = checkpoint.folder / output.CONFIG
    try:
        own, now = config_from_file(config), config_from_file(config, list(overrides))
        figures = measured(checkpoint, overrides)
    except InputError as error:
        return Summary(checkpoint.name, checkpoint.name, None, {}, None), Match(), problem or str(error)
    pictures = figures.pictures if figures else None
    found = match(own, now.test_file, pictures)
    if found.figures:  # an override can make another method of it
        found = match(now, now.test_file, pictures)
    means = {name: getattr(figures, name) for name in FIGURES} if figures else None
    source = read_published().source if found.figures else None
    return Summary(checkpoint.name, checkpoint.name, means, found.figures or {}, source), found, problem


def _lines(row: Summary, found: Match, state: str) -> list[Line]:
    """Measured, and where there is something to compare it to, published and the difference."""
    lines = [Line((row.title, (found.dataset or "").upper(), found.method or "", state, *cells(row.means)))]
    if row.published:
        lines.append(Line(("", "", "", PUBLISHED, *cells(row.published))))
    if row.differences:
        lines.append(Line(("", "", "", "difference", *cells(row.differences, "+.2f"))))
    return lines


def _values(row: Summary, found: Match, remark: str) -> dict[str, object]:
    """A line a checkpoint; `measured_*` and `published_*` in percent, empty where there is none."""
    values: dict[str, object] = {"checkpoint": row.name, "dataset": found.dataset, "method": found.method}
    for kind, figures in ((MEASURED, row.means or {}), (PUBLISHED, row.published)):
        values |= {f"{kind}_{name}": figures.get(name) for name in FIGURES}
    return {**values, "published_source": row.source, "note": remark}
