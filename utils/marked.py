"""What a command has started is known by a mark in its environment, and ended with the program that started it.

torch.distributed gives each of its processes a session of its own, so no process group holds them all, and loses
those it is starting at the moment it is asked to end. Where there is no /proc, nothing is found.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def ended_with_us(mark: str) -> Iterator[None]:
    """However this program ends, killed too, nothing with `mark` (NAME=value) in its environment stays behind.

    A small program watches a pipe from here, which the system closes when this program is gone.
    """
    watch = subprocess.Popen(
        # -I: no variable of the user's steers it; a session of its own: a signal to our group spares it.
        [sys.executable, "-I", __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        kill_marked(mark)
        watch.communicate()  # closes the pipe: it looks once more and ends


def end_marked(mark: str, seconds: float) -> None:
    """Ask every marked process to end (SIGTERM), once each, and wait so long for the last of them."""
    asked: set[int] = set()
    deadline = time.monotonic() + seconds
    while (now := marked(mark)) and time.monotonic() < deadline:
        for process in set(now) - asked:
            _send(process, signal.SIGTERM)
        asked |= set(now)
        time.sleep(0.05)


def kill_marked(mark: str) -> None:
    """Kill every marked process."""
    for _ in range(20):  # again, for a process started meanwhile; not for ever, for one the kernel holds
        now = marked(mark)
        if not now:
            return
        for process in now:
            _send(process, signal.SIGKILL)
        time.sleep(0.05)


def marked(mark: str) -> list[int]:
    """The processes that run with the mark in their environment."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark in _environment_of(folder)]


def _send(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _environment_of(folder: Path) -> list[str]:
    """A process's environment as /proc shows it: nothing if it is another user's or has ended."""
    try:
        return (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


if __name__ == "__main__":
    sys.stdin.buffer.read()
    kill_marked(sys.argv[1])
