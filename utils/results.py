"""What a run leaves for tables and figures: each query's rank, the embeddings, and what it cost.

Compressed arrays without pickles, written whole or not at all; `np.load(file, allow_pickle=False)` reads them.
"""

import io
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

from utils import processes
from utils.files import write_whole
from utils.output import EMBEDDINGS, RANKS


class Measured(NamedTuple):
    """An evaluation: the seven figures, and the ranks and embeddings they come from."""

    figures: dict[str, float]
    text_rank: Tensor  # [I], image to text: a picture's best rank over its own captions, from 0
    image_rank: Tensor  # [T], text to image: the rank of a caption's picture, from 0
    image_embeds: Tensor  # [I, D]
    text_embeds: Tensor  # [T, D]


def write_arrays(
    folder: Path,
    measured: Measured,
    *,
    own_image_of_text: Sequence[int],
    names: Sequence[str],
    labels: Sequence[int] | None,
    label_names: Sequence[str] | None,
) -> None:
    """Write `ranks.npz` and `embeddings.npz`, the embeddings in half precision.

    own_image_of_text: T picture numbers; names: the I pictures as the annotation file names them; labels and
    label_names: their I scenes, where they are known.
    """
    pictures = {"own_image_of_text": np.array(own_image_of_text, np.int32), "images": np.array(names, np.str_)}
    ranks = {"image_to_text": measured.text_rank, "text_to_image": measured.image_rank}
    embeds = {"image_embeds": measured.image_embeds, "text_embeds": measured.text_embeds}
    scenes = {}
    if labels is not None:
        scenes["label"] = np.array(labels, np.int32 if max(map(abs, labels)) < 2**31 else np.int64)
    if label_names is not None:
        scenes["label_name"] = np.array(label_names, np.str_)
    as_numbers = {name: values.cpu().numpy().astype(np.int32) for name, values in ranks.items()}
    halved = {name: values.cpu().half().numpy() for name, values in embeds.items()}
    write_whole(folder / RANKS, _compressed(as_numbers | pictures))
    write_whole(folder / EMBEDDINGS, _compressed(halved | pictures | scenes))


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
    if device.type == "cuda":
        own = torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB, macOS in bytes
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(processes.gather_uneven(torch.tensor([own], device=device)).max())


def _compressed(arrays: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()
