"""What a loss over the batch of all processes needs of the other processes, and their gradients of it.

With W processes each computes a loss of its own rows, and the global loss is the mean of the W. Alone, all of this
changes nothing. Rows are `[n, ...]` on each process, as many on every one unless `counts` has each one's, in rank
order; they have a gradient on every process or on none.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from utils.processes import mean, rank, world_size

Counts = Sequence[int] | None


def gather(rows: Tensor, counts: Counts = None) -> Tensor:
    """Rows of all processes, `[N, ...]` in rank order; a row's gradient is the sum of what all processes have of it."""
    if world_size() == 1:
        return rows
    if counts is None:
        return _Gather.apply(rows)
    padding = rows.new_zeros((max(counts) - len(rows), *rows.shape[1:]))
    parts = _Gather.apply(torch.cat([rows, padding])).chunk(len(counts))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def own_places(rows: Tensor, counts: Counts = None) -> Tensor:
    """Where this process's rows are among everyone's, `[n]`."""
    first = rank() * len(rows) if counts is None else sum(counts[: rank()])
    return torch.arange(first, first + len(rows), device=rows.device)


def with_gradient(features: Tensor, gather_grad: str) -> Tensor:
    """The same features, their gradient as `gather_grad` has it (see `models.losses`)."""
    if gather_grad == "full" or world_size() == 1 or not features.requires_grad:
        return features
    features = features.view_as(features)  # the hook sees the gradient of what is made of this one alone
    features.register_hook(lambda grad: grad / world_size())
    return features


def with_mean_gradient(parameter: Tensor | float) -> Tensor | float:
    """The same parameter, its gradient on each process that of the global loss."""
    return parameter if world_size() == 1 or isinstance(parameter, float) else _MeanGradient.apply(parameter)


def global_mean(loss: Tensor) -> Tensor:
    """The mean of all processes' losses, with the gradient of this one's."""
    if world_size() == 1:
        return loss
    return loss - loss.detach() + mean(loss)  # nothing, exactly, and the mean


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = grad.new_empty(ctx.rows, *grad.shape[1:])
        dist.reduce_scatter(own, list(grad.contiguous().chunk(world_size())))
        return own


class _MeanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return mean(grad)
