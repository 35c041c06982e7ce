"""A job on several real processes, which meet over gloo as a launcher's would."""

import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from utils import processes


def run_on_processes(count: int, job: Callable[..., Any], *args: Any) -> list[Any]:
    """What `job(*args)`, a module's function, returns on each of `count` processes, in rank order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        # A server with the imports done forks each process: seconds less than spawning, and no thread is forked.
        multiprocessing.set_forkserver_preload(["models.losses"])
        multiprocessing.start_processes(
            _process, (count, port, folder, job, args), nprocs=count, start_method="forkserver"
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _process(rank: int, count: int, port: int, folder: str, job: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(count)}
    torch.set_num_threads(1)
    processes.start("cpu")
    try:
        torch.save(job(*args), Path(folder) / f"{rank}.pt")
    finally:
        processes.stop()


def log_lines(file: Path) -> list[dict[str, Any]]:
    """The epochs of a `log.txt`; its last line names the best, as in the released code's."""
    return [json.loads(line) for line in file.read_text().splitlines() if not line.startswith("best epoch: ")]
