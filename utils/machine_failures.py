"""What a machine raises when it fails -> one line with the way out."""

import errno
import re

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
_PEER = "another process of this run ended first: its own error says why"

# By what torch and the system say. The first that fits counts: a worker's bus error is a lack of shared memory.
_WAYS_OUT = (
    (
        re.compile(r"DataLoader worker .*Bus error|(/torch_|shared memory).*(No space left|Success)"),
        _SHARED_MEMORY,
    ),
    (re.compile(r"Too many open files|ancdata"), _OPEN_FILES),
    (re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE), _PORT),
    (re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)"), _WORKER),
    (re.compile(r"out of memory|allocate memory|MemoryError", re.IGNORECASE), _MEMORY),
    (re.compile(r"(closed|reset) by (remote )?peer", re.IGNORECASE), _PEER),
)


def way_out(error: Exception) -> str | None:
    """What happened and what to do, in one line; None for an error that no machine's failure explains."""
    if not isinstance(error, OSError | MemoryError | RuntimeError | UnicodeError):
        return None
    said = _said(error)
    for pattern, advice in _WAYS_OUT:
        if pattern.search(f"{type(error).__name__}: {said}"):
            return f"{advice} ({said[:160]})"
    if isinstance(error, RuntimeError):
        return None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{said}: free some space, then go on (a training with --resume); what was whole before still is"
    return said


def _said(error: Exception) -> str:
    """The error's message on one line, with the file's name where there is one; of a worker's error its own."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    text = str(error)
    if "Original Traceback" in text:  # torch's, of an error in a worker
        text = re.split(r"\n(?=[\w.]+(?:Error|Exception): )", text)[-1]
    if isinstance(error, UnicodeError):
        return reason(error)[:300]
    return " ".join(text.split())[:300] or type(error).__name__
