"""What a run costs: parameters, seconds and memory."""

import json
import resource
import sys
from pathlib import Path

import torch
from torch import nn

from utils import processes


def count_parameters(model: nn.Module) -> dict[str, int]:
    """How many numbers the model has in all, and how many of them are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"total": sum(size for size, _ in sizes), "trained": sum(size for size, trained in sizes if trained)}


def train_seconds(log: Path) -> float:
    """The seconds of training that a `log.txt` tells of, those before an interruption with the rest."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return round(sum(json.loads(line)["train_seconds"] for line in lines), 2)


def peak_memory(device: torch.device) -> int:
    """The most bytes that one of the processes has held so far; every process must ask.

    On a card what PyTorch allocated there, else the process's resident memory, without its loader workers'.
    """
    if device.type == "cuda":
        own = torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB, macOS in bytes
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(processes.gather_uneven(torch.tensor([own], device=device)).max())
