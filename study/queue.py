"""Runs, one after another on each place, to their end: reported line by line, ended with us, failures listed."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO

from study.places import Place
from study.results import read_result
from study.runs import RUN_LOG, Run, State, state_of
from utils.errors import InputError
from utils.launch import KILL_SECONDS, shell_code, shell_line, stopping_signals
from utils.marked import ended_with_us
from utils.output import RESULT

STUDY_MARK = "PIR_STUDY"  # environment variable by which what a study has started is known
REASON = re.compile(r"(?:^|[\s.])(?:error|\w+Error|\w+Exception): \S")
LOG_TAIL = 100_000  # bytes of a failed run's log that are searched for the reason


def run_queue(runs: Sequence[Run], places: Sequence[Place]) -> int:
    """Run them all, a place's next when its last has ended; return the exit code.

    0: each has its result. 1: some failed, listed at the end with a line of their log. 128 + N: signal N ended this,
    and with it everything that was started; the same again goes on.
    """
    queue = _Queue(runs, places)
    with stopping_signals() as received, ended_with_us(f"{STUDY_MARK}={queue.mark}"):
        while not received and queue.step():
            time.sleep(0.1)
        if received:
            name = signal.Signals(received[0]).name
            print(f"{name}: ending all runs; the same command goes on with them", file=sys.stderr, flush=True)
            queue.end()
            return 128 + received[0]
    for run, reason in queue.failures:
        print(f"failed: {run.name}: {reason} (log: {run.folder / RUN_LOG})", file=sys.stderr, flush=True)
    return 1 if queue.failures else 0


@dataclass(frozen=True)
class _Child:
    run: Run
    label: str  # `2/4 ROW seed S`
    process: subprocess.Popen[bytes]
    started: float
    log_start: int  # where in the log its own output begins


class _Queue:
    """What waits, what runs where, and what failed."""

    def __init__(self, runs: Sequence[Run], places: Sequence[Place]) -> None:
        self.mark = uuid.uuid4().hex
        self.failures: list[tuple[Run, str]] = []  # with the reason
        self._places = places
        self._waiting = deque((run, f"{number}/{len(runs)} {run.name}") for number, run in enumerate(runs, 1))
        self._children: dict[int, _Child] = {}  # by the number of their place
        self._seconds: list[float] = []  # of the runs that finished

    def step(self) -> bool:
        """Take what has ended, start what there is a place for; False when nothing is left."""
        for at, child in list(self._children.items()):
            if child.process.poll() is not None:
                del self._children[at]
                self._ended(child)
        for at, place in enumerate(self._places):
            if at not in self._children and self._waiting:
                run, label = self._waiting.popleft()
                try:
                    self._start(at, place, run, label)
                except OSError as error:
                    self._failed(run, label, f"it cannot be started ({error.strerror})")
                except InputError as error:
                    self._failed(run, label, str(error))
        return bool(self._children or self._waiting)

    def end(self) -> None:
        """End every run; run.py ends its own processes, and has its time for it."""
        for child in self._children.values():
            child.process.terminate()
        deadline = time.monotonic() + 2 * KILL_SECONDS
        for child in self._children.values():
            try:
                child.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _start(self, at: int, place: Place, run: Run, label: str) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / RUN_LOG).open("ab") as log:
            _lock(log)
            state = state_of(run)  # another study may have been at work in it since
            if state == State.DONE:
                print(f"{label} was done meanwhile", flush=True)
                return
            command = run.command(place.dist, state)
            log.write(f"$ {shell_line(command, place.environment)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command,
                env={**os.environ, **place.environment, STUDY_MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches it once, from here
            )
            self._children[at] = _Child(run, label, process, time.monotonic(), log.tell())
        how = "goes on" if state == State.CUT else "starts"
        print(f"{label} {how}{self._time_left()}", flush=True)

    def _ended(self, child: _Child) -> None:
        code = shell_code(child.process.returncode)
        try:
            if code:
                raise InputError(_reason(child.run.folder / RUN_LOG, child.log_start) or f"exit code {code}")
            r_mean = float(read_result(child.run.folder / RESULT)["r_mean"])
        except (InputError, KeyError, TypeError, ValueError) as error:
            self._failed(child.run, child.label, str(error))
            return
        self._seconds.append(time.monotonic() - child.started)
        took = _duration(self._seconds[-1])
        print(f"{child.label} done in {took}, r_mean {r_mean:.2f}{self._time_left()}", flush=True)

    def _failed(self, run: Run, label: str, reason: str) -> None:
        self.failures.append((run, reason))
        print(f"{label} failed: {reason}", file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        """From the mean of what finished: `, about 0:10:00 left`; nothing before the first, or with nothing left."""
        if not self._seconds or not (self._children or self._waiting):
            return ""
        mean, now = sum(self._seconds) / len(self._seconds), time.monotonic()
        running = sum(max(0.0, mean - (now - child.started)) for child in self._children.values())
        return f", about {_duration((running + mean * len(self._waiting)) / len(self._places))} left"


def _reason(log: Path, start: int) -> str:
    """The last line of a run's output that names an error, or else its last line."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(start, log.stat().st_size - LOG_TAIL))
            text = stream.read().decode(errors="replace")
    except OSError:  # someone removed the folder
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if REASON.search(line)]
    return (named or lines or [""])[-1]


def _lock(log: IO[bytes]) -> None:
    """Lock the log for as long as any process holds it open, which all that it is the output of do."""
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError("another process, perhaps of a study that was killed, is at work in it") from None


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
