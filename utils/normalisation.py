"""The normalisation of pictures, CLIP's (SPEC 5), run on the device on a whole batch."""

from functools import lru_cache

import torch
from torch import Tensor

# Channel values of 0 to 1, RGB.
PICTURE_MEAN = (0.48145466, 0.4578275, 0.40821073)
PICTURE_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(images: Tensor) -> Tensor:
    """uint8 `[B, 3, H, W]` -> float `[B, 3, H, W]` on the same device, with CLIP's mean and deviation."""
    scale, shift = _scale_and_shift(images.device)
    return torch.addcmul(shift, images, scale)


@lru_cache
def _scale_and_shift(device: torch.device) -> tuple[Tensor, Tensor]:
    """`scale` and `shift` `[3, 1, 1]` such that `pixel * scale + shift` is the normalised value."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (PICTURE_MEAN, PICTURE_STD))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)
