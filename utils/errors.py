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


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit: an `InputError` is one `error:` line and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character must not end the work
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except InputError as error:
        rank = os.environ.get("RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
        if rank != "0":
            # Process 0 mostly meets the same mistake and speaks for all; the launcher then ends this one meanwhile.
            time.sleep(2)
        print(f"error: {error}" if rank == "0" else f"error in process {rank}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # who reads our output, `head` say, has seen enough
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter's last flush reports it again
        sys.exit(141)
