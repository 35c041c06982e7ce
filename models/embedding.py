"""Whole sets to embeddings, each process its share once, gathered in order (SPEC 6)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.pir import PIR
from utils.normalisation import normalise
from utils.processes import gather_uneven


@torch.inference_mode()
def embed_images(
    model: PIR,
    batches: Iterable[tuple[Tensor, Tensor]],
    total: int,
    device: torch.device,
    *,
    average_orientations: bool = False,
) -> Tensor:
    """Batches of (positions `[b]`, uint8 pictures `[b, 3, H, W]`) -> `[total, D]` on every process, in order.

    average_orientations: embed each (square) picture in its eight orientations and take the mean, as a unit vector.
    """
    embedded = []
    for positions, images in batches:
        images = normalise(images.to(device, non_blocking=True))  # [b, 3, H, W]
        views = orientations(images) if average_orientations else [images]
        embeds = torch.stack([model.encode_image(view) for view in views])  # [1 or 8, b, D]
        embedded.append((positions, F.normalize(embeds.mean(dim=0), dim=-1) if average_orientations else embeds[0]))
    return _in_order(embedded, total, model, device)


def orientations(images: Tensor) -> list[Tensor]:
    """The four quarter turns of pictures `[B, 3, S, S]` and of their mirror images."""
    return [view.rot90(turns, (2, 3)) for view in (images, images.flip(3)) for turns in range(4)]


@torch.inference_mode()
def embed_captions(
    model: PIR, batches: Iterable[tuple[Tensor, Tensor, Tensor]], total: int, device: torch.device
) -> Tensor:
    """Batches of (positions `[b]`, ids `[b, L]`, attention mask `[b, L]`) -> `[total, D]`, in order."""
    embedded = [(positions, model.encode_text(ids.to(device), mask.to(device))) for positions, ids, mask in batches]
    return _in_order(embedded, total, model, device)


def _in_order(embedded: list[tuple[Tensor, Tensor]], total: int, model: PIR, device: torch.device) -> Tensor:
    """This process's (positions, rows) and everyone else's, as one `[total, D]`."""
    dim = model.vision_proj.out_features
    positions = torch.cat([p.to(device) for p, _ in embedded] or [torch.empty(0, dtype=torch.long, device=device)])
    rows = torch.cat([r for _, r in embedded] or [torch.empty(0, dim, device=device)])
    ordered = torch.empty(total, dim, device=device)
    ordered[gather_uneven(positions)] = gather_uneven(rows)
    return ordered
