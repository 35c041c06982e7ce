"""Whole sets to embeddings, each process its share once, gathered in order (SPEC 6)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from models.pir import PIR
from utils.distributed import gather_uneven
from utils.normalisation import normalise


@torch.inference_mode()
def embed_images(model: PIR, batches: Iterable[tuple[Tensor, Tensor]], total: int, device: torch.device) -> Tensor:
    """Batches of (positions `[b]`, uint8 pictures `[b, 3, H, W]`) -> `[total, D]` on every process, in order."""
    embedded = [
        (positions, model.encode_image(normalise(images.to(device, non_blocking=True))))
        for positions, images in batches
    ]
    return _in_order(embedded, total, model, device)


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
