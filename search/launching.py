"""Indexing on several processes: Search.py starts itself, as `--dist` says; what the processes tell each other."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from utils.announced import is_launched
from utils.launch import (
    LAUNCHER,
    Processes,
    ignore_stopping,
    launcher_environment,
    option,
    run_to_end,
    unused_port,
)

T = TypeVar("T")


def is_started(args: argparse.Namespace) -> bool:
    """Whether this process is one that does the work: a launcher's, or one that was given its device."""
    return args.device is not None or is_launched()


def start(script: Path, arguments: Sequence[str], processes: Processes) -> int:
    """Run `script` with `arguments` in these processes; the exit code of the first that failed, or 0."""
    command = start_command(script, _without_dist(arguments), processes)
    code = run_to_end(command, processes.environment | launcher_environment())
    if 0 < code < 128 and processes.count > 1:  # the launcher reports at length, after the process has said why
        print(f"the run failed (exit code {code}): the reason stands above the launcher's report", file=sys.stderr)
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


def gather_objects(value: Any) -> list[Any]:
    """Every process's value, in rank order; small plain objects, which torch pickles between our own processes."""
    import torch.distributed as dist  # here: who starts the processes need not wait for it

    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def of_main(value: Callable[[], T]) -> T:
    """What process 0 finds, on every process; the others wait for it."""
    from utils.processes import is_main

    return gather_objects(value() if is_main() else None)[0]
