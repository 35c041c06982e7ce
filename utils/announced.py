"""What the environment says of a process: is it one of several, which cards may it see. No torch here."""

import os
from itertools import takewhile

from utils.errors import InputError

NAMES = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
NUMBERS = {"WORLD_SIZE": 1, "RANK": 0, "MASTER_PORT": 1}  # and the least each may be


def is_launched() -> bool:
    """Whether a launcher started this process, with the others or as the only one; False when it is alone.

    Raises InputError, naming what is missing, where only some of a launcher's variables are there, for values that
    are none, and for one of several tasks of Slurm without a launcher: each would train alone into the same folder.
    """
    given = {name: os.environ[name].strip() for name in NAMES if os.environ.get(name, "").strip()}
    if missing := [name for name in NAMES if name not in given]:
        if given.get("WORLD_SIZE", "1") != "1" or given.get("RANK", "0") != "0":
            raise InputError(
                f"the environment announces processes ({_shown(given)}) but lacks {', '.join(missing)}: start with "
                "run.py or torchrun, or unset WORLD_SIZE and RANK to run alone"
            )
        if (tasks := slurm_tasks()) > 1:
            raise InputError(
                f"Slurm started {tasks} tasks of this program, and none knows of the others: start one launcher a "
                "machine, srun --ntasks-per-node=1 python run.py --task TASK --dist auto (docs/launching.md)"
            )
        return False
    if [n for n, least in NUMBERS.items() if not given[n].isdecimal() or int(given[n]) < least] or (
        int(given["RANK"]) >= int(given["WORLD_SIZE"])
    ):
        raise InputError(f"the environment announces no possible process ({_shown(given)}): start with run.py")
    return True


def announced_world_size() -> int:
    """The number of processes a launcher announced, before they join; 1 when alone."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def slurm_tasks(variables: tuple[str, ...] = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")) -> int:
    """How many tasks Slurm started of this program, by the first of its variables there; 1 outside Slurm."""
    counts = [os.environ[name] for name in variables if os.environ.get(name, "").isdecimal()]
    return int(counts[0]) if counts and "SLURM_PROCID" in os.environ else 1


def named_cards() -> list[str] | None:
    """The cards that CUDA_VISIBLE_DEVICES names (up to a negative one, as CUDA reads it); None if unset."""
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        return None
    names = (name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    return list(takewhile(lambda name: name and not name.startswith("-"), names))


def _shown(given: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items())
