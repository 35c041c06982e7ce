"""What the user gave is wrong: one line that says what, where and what to do, and a non-zero exit."""

import io
import os
import re
import sys
import time
from collections.abc import Callable
from typing import NoReturn


class InputError(Exception):
    """A mistake in what came from outside (config, data, weights, command line), reported in one line."""


def listed(problems: list[str], shown: int = 5) -> str:
    """All problems counted, the first `shown` of them named: `3 problems: a; b; c`."""
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    more = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
    return f"{count}: {'; '.join(problems[:shown])}{more}"


def reason(error: Exception) -> str:
    """What a library raised, kind and message, on one line."""
    said = re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", f"{type(error).__name__}: {error}")  # without addresses in memory
    return " ".join(said.split())


def shown(value: object, most: int = 40) -> str:
    """A foreign value for a message, as Python writes it, cut at `most` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in itself
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= most else f"{text[:most]}..."


def printable(text: str) -> str:
    """A text on one line: what a terminal would obey (a new line, an escape) is shown as Python writes it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _line_of(error: Exception) -> str | None:
    """What to say of an error in one line; None where it is none of those foreseen."""
    if isinstance(error, InputError):
        return str(error)
    from utils.machine_failures import way_out  # here, as a run that ends well has no use for it

    return way_out(error)


def warn(text: str) -> None:
    """Print a warning once: from the launcher, or from process 0 where nothing launched it."""
    launched = any(name.startswith("PIR_RUN") for name in os.environ)  # by run.py, which has printed it
    if not launched and os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}", file=sys.stderr, flush=True)


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit: an `InputError`, or a machine that fails, is one `error:` line and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character must not end the work
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # who reads our output, `head` say, has seen enough: the last flush must not report it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        try:
            line = _line_of(error)
        except RuntimeError as later:  # torch tells of a worker's end at any time, as in the midst of this
            line = _line_of(later)
        if line is None:
            raise
        line = printable(line)
        rank = os.environ.get("RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
        if rank != "0":
            # Process 0 mostly meets the same mistake and speaks for all; the launcher then ends this one meanwhile.
            time.sleep(2)
        print(f"error: {line}" if rank == "0" else f"error in process {rank}: {line}", file=sys.stderr, flush=True)
        sys.exit(2)
