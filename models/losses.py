"""Contrastive, cluster-wise affiliation and triplet loss on features gathered over processes (docs/behaviour.md, 3).

Features are normalised and `[B, D]` on each process, the same B on all; with W processes the losses are those
of the global batch `[W * B, D]`, the same value on every process. `gather_grad` is that of `gather`.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from utils.processes import world_size


def contrastive_loss(
    v: Tensor,
    t: Tensor,
    temp: Tensor | float,
    idx: Tensor | None = None,
    sentence: Tensor | None = None,
    *,
    gather_grad: str = "local",
) -> Tensor:
    """Image-text contrastive loss with every pair of the same picture as a positive.

    v, t: image and text features `[B, D]`; temp: temperature; idx `[B]`: picture ids (None: each its own).
    sentence `[B]`: a number a sentence; other pictures' captions equal to one of its own are its positives too.
    Returns the mean of the image-to-text and text-to-image cross-entropies.
    """
    v, t = gather(v, gather_grad), gather(t, gather_grad)
    logits = v @ t.T / temp  # [W * B, W * B]
    positive = torch.eye(len(v), device=v.device) if idx is None else _equal(gather(idx))
    if sentence is not None:
        # [picture, caption] -> the caption's sentence is said of the picture, by whichever of its captions.
        positive = (positive @ _equal(gather(sentence))).clamp(max=1)
    image_to_text = F.cross_entropy(logits, F.normalize(positive, p=1, dim=1))
    return (image_to_text + F.cross_entropy(logits.T, F.normalize(positive.T, p=1, dim=1))) / 2


def _equal(numbers: Tensor) -> Tensor:
    """`[B]` -> `[B, B]`, 1 where two are the same."""
    return (numbers[:, None] == numbers[None, :]).float()


def class_centers(features: Tensor, label: Tensor) -> Tensor:
    """For each row the mean of the features with its label: `[B, D]`, `[B]` -> `[B, D]`."""
    same = (label[:, None] == label[None, :]).to(features.dtype)
    return same @ features / same.sum(dim=1, keepdim=True)


def affiliation_loss(
    v: Tensor,
    t: Tensor,
    label: Tensor,
    temp: Tensor | float,
    *,
    center_scope: str = "process",
    same_class_negatives: bool = True,
    gather_grad: str = "local",
) -> Tensor:
    """Cluster-wise affiliation loss: a picture to the text centre of its scene, a caption to the image centre.

    v, t `[B, D]`; label `[B]`: scene classes; temp: its own temperature.
    center_scope: centres from this process's samples (`process`, as released) or all (`global`).
    same_class_negatives: as released, another sample of the class is a negative though its centre is the
    same; False leaves it out of the comparison.
    """
    if center_scope == "process":
        image_centers, text_centers = class_centers(v, label), class_centers(t, label)
        image_centers, text_centers = gather(image_centers, gather_grad), gather(text_centers, gather_grad)
    v, t, label = gather(v, gather_grad), gather(t, gather_grad), gather(label)
    if center_scope == "global":
        image_centers, text_centers = class_centers(v, label), class_centers(t, label)
    image_to_center = v @ text_centers.T / temp  # [W * B, W * B]
    # Transposed, as released: each image centre chooses its caption among all captions.
    center_to_text = image_centers @ t.T / temp
    own = torch.arange(len(v), device=v.device)
    if not same_class_negatives:
        left_out = (label[:, None] == label[None, :]) & (own[:, None] != own[None, :])
        image_to_center = image_to_center.masked_fill(left_out, float("-inf"))
        center_to_text = center_to_text.masked_fill(left_out, float("-inf"))
    return (F.cross_entropy(image_to_center, own) + F.cross_entropy(center_to_text, own)) / 2


def triplet_loss(
    v: Tensor, t: Tensor, margin: float = 0.2, hardest: bool = False, *, gather_grad: str = "local"
) -> Tensor:
    """Triplet loss over the global similarity matrix, both directions (VSE++, Faghri et al. 2018).

    v, t `[B, D]`. The sum over all violations of the margin, or over the hardest of each row and column.
    """
    v, t = gather(v, gather_grad), gather(t, gather_grad)
    scores = v @ t.T  # [W * B, W * B]
    matched = scores.diagonal()
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    wrong_text = (margin + scores - matched[:, None]).clamp(min=0).masked_fill(own, 0)
    wrong_image = (margin + scores - matched[None, :]).clamp(min=0).masked_fill(own, 0)
    if hardest:
        return wrong_text.max(dim=1).values.sum() + wrong_image.max(dim=0).values.sum()
    return wrong_text.sum() + wrong_image.sum()


class _Gather(torch.autograd.Function):
    """All rows of all processes, in rank order, differentiable in this process's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sum_over_processes: bool) -> Tensor:
        ctx.sum_over_processes, ctx.rows = sum_over_processes, len(rows)
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.sum_over_processes:
            grad = grad.clone(memory_format=torch.contiguous_format)  # autograd may share its own
            dist.all_reduce(grad)
        first = dist.get_rank() * ctx.rows
        return grad[first : first + ctx.rows], None


def gather(rows: Tensor, grad: str = "local") -> Tensor:
    """Rows of all processes, `[n, ...]` each, to `[W * n, ...]` in rank order.

    grad: `local` keeps this process's slice of its own gradient, as released (with the mean that
    DistributedDataParallel takes, a fraction 1/W of the true gradient through the gather); `full` sums the
    slice over processes first, which makes that mean the gradient of the global loss.
    """
    return rows if world_size() == 1 else _Gather.apply(rows, grad == "full")
