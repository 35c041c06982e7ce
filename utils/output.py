"""The folder a run writes to. No torch here: the launcher looks at it before any process starts."""

import atexit
import fcntl
import os
import socket
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TypeVar

from utils.errors import InputError
from utils.typed import read_yaml

BEST = "checkpoint_best.pth"
PRIOR = "prior.pth"
CONFIG = "config.yaml"
EXPORTED_WEIGHTS, EXPORTED_CONFIG = "model.safetensors", "config.json"  # of an exported folder
PREPROCESSING = "preprocessing.json"  # of an ONNX export
LOG = "log.txt"
RESULT = "result.json"
RANKS = "ranks.npz"
EMBEDDINGS = "embeddings.npz"
EXAMPLES = "examples.png"
CONFUSION = "confusion.png"
RESUME = "resume.pth"
CURVES = "tensorboard"

LOCK = ".lock"  # held while a program writes to the folder
WAY_OUT = "give another --output_dir"  # of a folder that another run writes to
EARLIER = "earlier"  # where the evaluations before the last one are kept

OF_EVALUATION = (RESULT, RANKS, EMBEDDINGS, EXAMPLES, CONFUSION)

SHARED_SECONDS = 30.0

_locks: dict[Path, IO[str]] = {}  # of this process, held as long as they are open

Given = TypeVar("Given", str, None)  # an argument of the command line


def check_output(folder: Path, *, resume: bool, overwrite: bool, evaluate: bool, epochs: int = 0) -> None:
    """Raise InputError where the folder holds a run already and nothing says what to do with it.

    epochs: of the training to come, which name its last checkpoint: no other file may stand in its place.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one")
    if resume and evaluate:
        raise InputError("--resume goes on with a training, --evaluate does none; give one")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder} is a file; name a folder")
    found = files_of_run(folder, evaluate)
    last = folder / f"checkpoint_{epochs - 1}.pth"
    if epochs and not resume and last.exists() and last not in found:
        raise InputError(f"{last} is of no run in that folder, and this one writes it; move it, or give another folder")
    if (folder / CURVES).exists() and not (folder / CURVES).is_dir():
        raise InputError(f"{folder / CURVES} is a file, and a run writes a folder of that name; move it")
    if evaluate and _holds_evaluations_alone(folder):
        return  # they follow each other, see `keep_earlier`
    if found and not (resume or overwrite):
        way_out = "--overwrite" if evaluate else "--resume or --overwrite"
        raise InputError(f"{folder} already holds a run ({found[0].name}); give {way_out}, or another --output_dir")
    if resume and not (folder / RESUME).exists() and _holds_whole_epochs(folder):
        raise InputError(f"{folder} has no {RESUME} to go on from; give --overwrite, or another --output_dir")


def _holds_whole_epochs(folder: Path) -> bool:
    """Whether a run there came further than its first epoch, which may be cut before anything can be gone on from."""
    log = folder / LOG
    epochs = len(log.read_bytes().splitlines()) if log.is_file() else 0
    return epochs > 1 or (folder / RESULT).exists() or any(folder.glob("checkpoint_[0-9]*.pth"))


def _holds_evaluations_alone(folder: Path) -> bool:
    """Whether a folder has results of evaluations and no training's."""
    return (folder / RESULT).exists() and not any((folder / name).exists() for name in (LOG, RESUME, BEST, PRIOR))


def lock(folder: Path, way_out: str = WAY_OUT) -> None:
    """Keep the folder for this process until it ends; InputError naming the process that has it already, and a way out.

    The system frees the lock of a process that was killed.
    """
    place = folder / LOCK
    if place in _locks and place.exists():
        return
    file = _opened_lock(place, way_out)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    _locks[place] = file
    atexit.register(_unlock_at_exit, folder, os.getpid())


def check_unlocked(folder: Path) -> None:
    """Raise InputError where another run is at work in the folder."""
    if (folder / LOCK).is_file():
        _opened_lock(folder / LOCK).close()


def _opened_lock(place: Path, way_out: str = WAY_OUT) -> IO[str]:
    """The lock's file, locked."""
    while True:
        file = place.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = place.read_text(encoding="utf-8").strip() or "another process"
            raise InputError(f"{place.parent} is in use by another run ({holder}); wait for it, or {way_out}") from None
        if place.exists() and os.path.samestat(os.fstat(file.fileno()), place.stat()):
            return file
        file.close()  # whoever had the lock removed the file since it was opened here


def _unlock_at_exit(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a worker that was forked
        unlock(folder)


def unlock(folder: Path) -> None:
    """Give the folder free, where this process has it."""
    if file := _locks.pop(folder / LOCK, None):
        (folder / LOCK).unlink(missing_ok=True)
        file.close()


def weights_in(given: Given) -> Given:
    """The weights that `--checkpoint` names: a file, or a folder's, as published, as a run left it or as exported."""
    if not given or not Path(given).is_dir():
        return given
    return str(Path(given) / (EXPORTED_WEIGHTS if _is_exported(given) else BEST))


def config_in(given: str | None) -> str | None:
    """The config that comes with the weights that `--checkpoint` names: a folder's own; None with a file."""
    if not given or not Path(given).is_dir():
        return None
    return str(Path(given) / (EXPORTED_CONFIG if _is_exported(given) else CONFIG))


def _is_exported(folder: str) -> bool:
    """Whether a folder is an exported one; what a run left in it would come first."""
    return not Path(folder, BEST).exists() and Path(folder, EXPORTED_WEIGHTS).exists()


def open_output(folder: Path) -> None:
    """Make the folder and see that files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--output_dir {folder} cannot be written ({error.strerror})") from None


def wait_for_output(folder: Path) -> None:
    """See the folder that process 0 made, perhaps on another machine, whose disk may take a moment to show it."""
    deadline = time.monotonic() + SHARED_SECONDS
    while not folder.is_dir():
        if time.monotonic() > deadline:
            raise InputError(f"--output_dir {folder} must be on a disk that all machines share")
        time.sleep(0.5)


def files_of_run(folder: Path, evaluate: bool) -> list[Path]:
    """The files there that a run or an evaluation wrote. Raises InputError for a folder of such a name."""
    names = list(OF_EVALUATION)
    if not evaluate:
        names = [CONFIG, LOG, *OF_EVALUATION, RESUME, PRIOR, BEST, *_last_checkpoint(folder)]
    files = [folder / name for name in names if (folder / name).exists()]
    if not evaluate:
        files += sorted((folder / CURVES).glob("events.out.tfevents.*"))
    if folders := [file for file in files if file.is_dir()]:
        raise InputError(f"{folders[0]} is a folder, and a run writes a file of that name; give another --output_dir")
    return files


def _last_checkpoint(folder: Path) -> list[str]:
    """The name of the last epoch's checkpoint, by the config of the run there: other numbers are not this run's."""
    try:
        epochs = read_yaml(folder / CONFIG)["schedular"]["epochs"]
    except (InputError, KeyError, TypeError):
        return []
    return [f"checkpoint_{epochs - 1}.pth"] if isinstance(epochs, int) else []
