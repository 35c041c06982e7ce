"""The runs of a study: each row by each seed, its folder, what it holds, and its run.py command."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from study.compared import differing_from_recorded
from study.plan import PlannedRow
from study.results import read_result
from utils.errors import InputError, listed
from utils.output import CONFIG, RESULT, RESUME, check_output
from utils.typed import read_yaml

PROGRAM = Path(__file__).resolve().parents[1] / "run.py"
RUN_LOG = "run.log"  # what a run prints; not a file by which run.py knows a run


class State(Enum):
    """What a run's folder holds."""

    NEW = "new"
    CUT = "cut"  # goes on after its last whole epoch
    DONE = "done"


FLAGS = {State.CUT: ["--resume"]}


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

    def command(self, dist: str, state: State = State.NEW) -> list[str]:
        """run.py's command line."""
        return [sys.executable, str(PROGRAM), *self.arguments(), "--dist", dist, *FLAGS.get(state, [])]

    def arguments(self) -> list[str]:
        """run.py's arguments, without those that say on what and from where it goes on."""
        arguments = ["--task", self.task, "--config", self.row.config_file, *override_arguments(self.row.overrides)]
        arguments += ["--seed", str(self.seed), "--output_dir", str(self.folder)]
        if self.row.bs:
            arguments += ["--bs", str(self.row.bs)]
        return [*arguments, "--download"] if self.download else arguments


def override_arguments(overrides: Iterable[str]) -> list[str]:
    """An `--override` for each."""
    return [part for override in overrides for part in ("--override", override)]


def runs_of(
    rows: Iterable[PlannedRow], seeds: Sequence[int], task: str, output_dir: Path, *, download: bool = False
) -> list[Run]:
    """The rows in order for the first seed, then for the next: a study that is stopped has whole columns."""
    rows = list(rows)
    return [Run(row, seed, task, output_dir / row.name / f"seed_{seed}", download) for seed in seeds for row in rows]


def state_of(run: Run) -> State:
    """What the folder of a run holds.

    Raises InputError where it holds a run of another config or seed (the keys are named), or one that can neither go
    on nor be started again without losing whole epochs.
    """
    folder = run.folder
    if (folder / RESULT).exists():
        recorded = read_result(folder / RESULT)
        differing = [*differing_from_recorded(recorded.get("config"), run.row.config, folder / RESULT)]
        if recorded.get("seed") != run.seed:
            differing.append("seed")
        if run.row.bs and recorded.get("batch_size") not in (None, run.row.bs):
            differing.append("the global batch")
        _refuse(differing, run, "is of a run that differs in")
        if recorded.get("epoch") is None:
            raise InputError(f"{folder} holds an evaluation's result, not a training's; move it away")
        return State.DONE
    if (folder / CONFIG).exists():
        differing = [*differing_from_recorded(read_yaml(folder / CONFIG), run.row.config, folder / CONFIG)]
        _refuse(differing, run, "holds a run cut short that differs in")
    if _accepted(folder, resume=False):
        return State.NEW
    if _accepted(folder, resume=True):
        return State.CUT
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


def _refuse(differing: Sequence[str], run: Run, how: str) -> None:
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
