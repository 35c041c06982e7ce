"""The runs of a study: each row by each seed, its folder, what stands there, and its run.py command."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from study.plan import PlannedRow
from utils.config import Config, config_from_dict
from utils.errors import InputError, listed
from utils.output import CONFIG, LOG, RESULT, RESUME, check_output
from utils.typed import read_yaml

PROGRAM = Path(__file__).resolve().parents[1] / "run.py"
RUN_LOG = "run.log"  # what a run prints; not a file by which run.py knows a run


class State(Enum):
    """What stands in a run's folder."""

    NEW = "new"
    CUT = "cut"  # goes on after its last whole epoch
    CUT_BEFORE_AN_EPOCH = "cut before an epoch"  # nothing to go on from: starts again
    DONE = "done"


@dataclass(frozen=True)
class Run:
    """One row with one seed."""

    row: PlannedRow
    seed: int
    task: str
    folder: Path
    download: bool = False  # whether missing start files may be fetched

    @property
    def name(self) -> str:
        """How progress and errors name it."""
        return f"{self.row.name} seed {self.seed}"

    def command(self, dist: str | None, state: State = State.NEW) -> list[str]:
        """run.py's command line (dist None: run.py's own default)."""
        command = [sys.executable, str(PROGRAM), *self.arguments()]
        command += ["--dist", dist] if dist else []
        flags = {State.CUT: ["--resume"], State.CUT_BEFORE_AN_EPOCH: ["--overwrite"]}
        return command + flags.get(state, [])

    def arguments(self) -> list[str]:
        """run.py's arguments, without those that say on what and from where it goes on."""
        arguments = ["--task", self.task, "--config", self.row.config_file]
        for override in self.row.overrides:
            arguments += ["--override", override]
        arguments += ["--seed", str(self.seed), "--output_dir", str(self.folder)]
        return [*arguments, "--download"] if self.download else arguments


def runs_of(
    rows: Iterable[PlannedRow], seeds: Sequence[int], task: str, output_dir: Path, *, download: bool = False
) -> list[Run]:
    """The rows in order for the first seed, then for the next: a study that is stopped has whole columns."""
    rows = list(rows)
    return [Run(row, seed, task, run_folder(output_dir, row.name, seed), download) for seed in seeds for row in rows]


def run_folder(output_dir: Path, row: str, seed: int) -> Path:
    """Where a row's run with a seed is."""
    return output_dir / row / f"seed_{seed}"


def state_of(run: Run) -> State:
    """What stands in the folder of a run.

    Raises InputError where it holds a run of another config or seed (the keys are named), or one that can neither go
    on nor be started again without losing whole epochs.
    """
    folder = run.folder
    if (folder / RESULT).exists():
        recorded = read_result(folder / RESULT)
        config = recorded.get("config")
        differing = [*differing_values(config if isinstance(config, Mapping) else {}, run.row.config, folder / RESULT)]
        if recorded.get("seed") != run.seed:
            differing.append("seed")
        _refuse(differing, run, "is of a run that differs in")
        if recorded.get("epoch") is None:
            raise InputError(f"{folder} holds an evaluation's result, not a training's; move it away")
        return State.DONE
    if (folder / CONFIG).exists():
        differing = [*differing_values(read_yaml(folder / CONFIG), run.row.config, folder / CONFIG)]
        _refuse(differing, run, "holds a run cut short that differs in")
    if _accepted(folder, resume=False):
        return State.NEW
    if _accepted(folder, resume=True):
        return State.CUT
    if folder.is_dir() and _lines(folder / LOG) <= 1 and not list(folder.glob("checkpoint_[0-9]*.pth")):
        return State.CUT_BEFORE_AN_EPOCH
    raise InputError(f"{folder} has no {RESUME} to go on from; move it away to start again")


def states_of(runs: Sequence[Run]) -> list[State]:
    """The state of each run, or InputError naming every folder that cannot be used."""
    states, problems = [], []
    for run in runs:
        try:
            states.append(state_of(run))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(problems[0] if len(problems) == 1 else listed(problems))
    return states


def read_result(file: Path) -> Mapping[str, Any]:
    """The object in a result file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it and run its row again") from None
    if not isinstance(values, Mapping):
        raise InputError(f"{file} is no result of a run; remove it and run its row again")
    return values


def _no_number(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def differing_values(recorded: Mapping[str, Any], config: Config, file: Path) -> dict[str, Any]:
    """By dotted key, what a recorded config has where it is not `config`; what it lacks has its default.

    `num_workers` decides nothing of what is trained and is left out. Raises InputError where `recorded` is no config.
    """
    try:
        before = _flat(config_from_dict(recorded).to_dict())
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    now = _flat(config.to_dict())
    differing = [key for key in {*before, *now} if before.get(key) != now.get(key) and key != "num_workers"]
    return {key: before.get(key) for key in sorted(differing)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _refuse(differing: list[str], run: Run, how: str) -> None:
    if differing:
        raise InputError(
            f"{run.folder} {how} {', '.join(differing)} from what {run.name} is now; restore them, or give another "
            "--output_dir"
        )


def _accepted(folder: Path, *, resume: bool) -> bool:
    """Whether run.py would work in the folder."""
    try:
        check_output(folder, resume=resume, overwrite=False, evaluate=False)
    except InputError:
        return False
    return True


def _lines(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.exists() else 0
