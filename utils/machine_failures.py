"""What a machine raises when it fails -> one line with the way out."""

import re
import shutil
import traceback
from pathlib import Path

from utils.errors import reason

_SHARED_MEMORY = (
    "the loader's workers have too little shared memory (/dev/shm; Docker gives 64 MB): start the container with "
    "--shm-size=8g or --ipc=host, or set num_workers=0"
)
_OPEN_FILES = "this shell allows too few open files: raise it (ulimit -n 65536), or use a smaller num_workers"
_PORT = "another program, perhaps another run, listens on this port: give another --master_port"
_WORKER = (
    "a worker of the loader was ended from outside, mostly because memory ran out: use a smaller num_workers or "
    "batch_size_train"
)
_MEMORY = "memory ran out: use a smaller batch_size_train (--bs), for an evaluation batch_size_test, or num_workers"
_PEER = (
    "another process of this run, or a worker of the loader, ended first: its own error says why, and where there is "
    "none, memory ran out"
)
_DISK = "free some space, then go on (a training with --resume); what was whole before still is"

# By what torch and the system say; the first that fits counts.
_WAYS_OUT = (
    (re.compile(r"Too many open files|ancdata"), _OPEN_FILES),
    (re.compile(r"DataLoader worker .*Bus error|unable to \w+ .*/torch_"), _SHARED_MEMORY),
    (re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE), _PORT),
    (re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)"), _WORKER),
    (re.compile(r"out of memory|allocate memory|MemoryError", re.IGNORECASE), _MEMORY),
    (re.compile(r"No space left on device|Disk quota exceeded"), _DISK),
    (re.compile(r"(closed|reset) by (remote )?peer", re.IGNORECASE), _PEER),
)


def way_out(error: Exception) -> str | None:
    """What happened and what to do, in one line; None for an error that no machine's failure explains."""
    if _is_cut_connection(error):
        return _PEER
    if not isinstance(error, OSError | MemoryError | RuntimeError | UnicodeError):
        return None
    said = _said(error)
    for pattern, advice in _WAYS_OUT:
        if pattern.search(f"{type(error).__name__}: {said}"):
            if advice is _WORKER and _little_shared_memory():  # torch then says no more than that a worker ended
                advice = _SHARED_MEMORY
            return f"{advice} ({said[:160]})"
    return None if isinstance(error, RuntimeError) else said


def _is_cut_connection(error: Exception) -> bool:
    """Whether a worker ended while it handed over a batch: the pipe to it then has an end, as a short file does."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, EOFError) and bool(frames) and Path(frames[-1].filename).parent.name == "multiprocessing"


def _little_shared_memory() -> bool:
    """Whether a few batches of pictures would fill /dev/shm."""
    shared = Path("/dev/shm")
    return shared.is_dir() and shutil.disk_usage(shared).total < 2**28


def _said(error: Exception) -> str:
    """The error's message on one line, with the file's name where there is one; of a worker's error its own."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    text = str(error)
    if "Original Traceback" in text:  # torch's, of an error in a worker
        text = re.split(r"\n(?=[\w.]+(?:Error|Exception)(?::|\s*$))", text)[-1]
    if isinstance(error, UnicodeError):
        return reason(error)[:300]
    return " ".join(text.split())[:300] or type(error).__name__
