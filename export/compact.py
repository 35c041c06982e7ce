"""Weights stored small, at under a third of their size; `utils/safe_weights.py` restores them to float32."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from utils.safe_weights import COMPACT, ROW_SCALE, SAME_AS, VERSION

# Numbers; shorter rows (depthwise convolutions, a stem) are stored in half precision. The picture encoder loses most by
# int8 (cosine to float32 0.9973 with 64, 0.9990 with 512, bf16 alone 0.9988), the prior and the others next to nothing.
LEAST_ROW, LEAST_ROW_OF_PICTURES = 64, 512
PICTURES = "vision_encoder."
MOST_HALF = 65504  # the largest number of half precision


def compacted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A state dict -> the tensors to store, and the metadata that says how they are to be read.

    Long rows (linear layers, 1x1 convolutions, word embeddings) become int8 with a scale each, other matrices half
    precision; vectors and whole numbers stay. Of equal tensors, as the start weights that two encoders share, one is
    stored.
    """
    stored: dict[str, Tensor] = {}
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    for name, tensor in state.items():
        content = hashlib.sha256(tensor.contiguous().numpy().tobytes()).digest()
        other = first.setdefault((tensor.dtype, tensor.shape, content), name)
        if other != name:
            same[name] = other
        elif not tensor.is_floating_point() or tensor.ndim < 2:
            stored[name] = tensor
        elif tensor[0].numel() >= (LEAST_ROW_OF_PICTURES if name.startswith(PICTURES) else LEAST_ROW):
            stored[name], stored[name + ROW_SCALE] = quantised(tensor)
        else:
            stored[name] = tensor.half() if tensor.abs().max() <= MOST_HALF else tensor
    return stored, {COMPACT: VERSION, SAME_AS: json.dumps(same)}


def quantised(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor `[R, ...]` -> int8 of the same shape and the scale of each row, float32 `[R]`."""
    rows = tensor.float().flatten(1)
    scale = rows.abs().amax(dim=1) / 127  # a row of zeros has scale 0
    steps = (rows / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
    return steps.to(torch.int8).reshape(tensor.shape), scale
