"""Indexing on several processes: Search.py starts itself, once a card or as often as `--dist` says."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.announced import is_launched
from utils.launch import (
    LAUNCHER,
    Processes,
    ignore_stopping,
    launcher_environment,
    option,
    processes_for,
    run_to_end,
    unused_port,
)


def is_started(args: argparse.Namespace) -> bool:
    """Whether this process is one that does the work: a launcher's, or one that was given its device."""
    return args.device is not None or is_launched()


def start(script: Path, arguments: Sequence[str], dist: str | None) -> int:
    """Run `script` with `arguments` in the processes of a preset; the exit code of the first that failed, or 0."""
    processes = processes_for(dist or "auto")
    command = start_command(script, _without_dist(arguments), processes)
    code = run_to_end(command, processes.environment | launcher_environment())
    if code > 128:
        ignore_stopping()
    return code


def start_command(script: Path, arguments: Sequence[str], processes: Processes) -> list[str]:
    """`python script ...` for one process; torch.distributed.launch around it for several."""
    command = [sys.executable]
    if processes.count > 1:
        command += ["-m", LAUNCHER, "--use_env", "--nproc_per_node", str(processes.count)]
        command += option("master_addr", "127.0.0.1") + option("master_port", unused_port())
    return [*command, str(script), *arguments, *option("device", processes.device)]


def _without_dist(arguments: Sequence[str]) -> list[str]:
    """The command line for the processes: `--dist` has done its work."""
    kept, following = [], iter(arguments)
    for argument in following:
        if argument == "--dist":
            next(following)
        elif not argument.startswith("--dist="):
            kept.append(argument)
    return kept
