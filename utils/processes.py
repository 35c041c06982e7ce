"""Every torch.distributed call: start and stop, ranks, the gather under the losses, the gather of an evaluation."""

import argparse
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils import output
from utils.errors import InputError


def start(device: str = "auto") -> torch.device:
    """Join the processes a launcher announced in the environment (nccl on GPU, gloo on CPU).

    Alone, without `WORLD_SIZE` in the environment, nothing is started.
    device: auto, cpu or cuda; auto takes this process's card where there is one.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no card here; give cpu or auto")
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(chosen)
    if "WORLD_SIZE" in os.environ:
        # A process may wait this long for another that reads, checks or writes files.
        dist.init_process_group("nccl" if use_cuda else "gloo", timeout=timedelta(minutes=30))
    return chosen


def start_run(args: argparse.Namespace) -> torch.device:
    """Start this process on its device, with `--output_dir` there for all and free for what the arguments ask.

    Raises InputError where it holds a run already or cannot be written.
    """
    output.check_output(args.output_dir, resume=args.resume, overwrite=args.overwrite, evaluate=args.evaluate)
    device = start(args.device)
    if is_main():
        output.open_output(args.output_dir)
    barrier()
    output.wait_for_output(args.output_dir)
    return device


def announced_world_size() -> int:
    """The number of processes a launcher announced, before they join; 1 when alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def stop() -> None:
    """Leave the group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def barrier() -> None:
    """Wait for every process."""
    if dist.is_initialized():
        dist.barrier()


def broadcast_buffers(model: nn.Module) -> None:
    """Rank 0's buffers, on every process: batch norm's statistics are otherwise each process's own."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


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


def gather_uneven(rows: Tensor) -> Tensor:
    """Rows of all processes in rank order, `[n_r, ...]` each and possibly none, without gradient."""
    if world_size() == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    longest = int(max(counts))
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])
