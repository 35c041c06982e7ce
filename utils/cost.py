"""What a result cost, and what it depends on beside the config."""

import numpy as np
import PIL
import timm
import torch
import torchvision
import transformers
from torch import nn

from utils import processes
from utils.memory import peak_bytes


def card_settings(device: torch.device) -> dict[str, bool] | None:
    """What a result on a card depends on beside the libraries; None on a CPU."""
    if device.type != "cuda":
        return None
    return {
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def library_versions() -> dict[str, str]:
    """The versions of the libraries that a result depends on."""
    libraries = (torch, torchvision, timm, transformers, np, PIL)
    return {library.__name__: library.__version__ for library in libraries}


def count_parameters(model: nn.Module) -> dict[str, int]:
    """How many numbers the model has in all, and how many of them are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"total": sum(size for size, _ in sizes), "trained": sum(size for size, trained in sizes if trained)}


def peak_memory(device: torch.device) -> int:
    """The most bytes that one of the processes has held so far; every process must ask.

    On a card what PyTorch allocated there, else the process's resident memory, without its loader workers'.
    """
    own = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()
    return int(processes.gather_uneven(torch.tensor([own], device=device)).max())
