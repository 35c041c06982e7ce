"""The processes of a run: start and stop, ranks, a model in parallel, the gather of an evaluation."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.announced import announced_world_size, is_launched, named_cards
from utils.errors import InputError


def start(device: str = "auto") -> torch.device:
    """Join the processes a launcher announced in the environment (nccl on GPU, gloo on CPU).

    Alone, nothing is started. device: as for `device_for`.
    """
    chosen = device_for(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if is_launched():
        # A process may wait this long for another that reads, checks or writes files.
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    return chosen


def device_for(device: str) -> torch.device:
    """auto, cpu, cuda or cuda:N -> this process's device; auto takes its card where there is one."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not cards and not named_cards()):
        return torch.device("cpu")
    if not cards:
        named = f" (CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']})" if named_cards() else ""
        raise InputError(f"--device {device}: PyTorch sees no card here{named}; give cpu or mend the driver")
    _, _, number = device.partition(":")
    if number and announced_world_size() > 1:
        raise InputError(f"--device {device}: with several processes each takes a card of its own; give cuda")
    card = int(number or os.environ.get("LOCAL_RANK") or 0)
    if card >= cards:
        raise InputError(f"no card {card}: PyTorch sees {cards} here, from 0; start fewer processes or name another")
    return torch.device("cuda", card)


def use_published_settings(device: torch.device, precision: str) -> None:
    """On a card, cuDNN's choice by trial and, but for `fp32`, TF32: the released code's torch and script had both."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What autocast computes in, None for no autocast; `auto` is bf16 where the processor has bf16 arithmetic."""
    if precision == "auto":
        if device.type == "cuda":
            has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            has = torch.cpu.get_capabilities()
            has_bf16 = has.get("avx512_bf16") or has.get("amx_bf16")
        return torch.bfloat16 if has_bf16 else None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def autocast(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """The context in which a device computes in what `autocast_dtype` gave."""
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def card_memory(device: torch.device) -> dict[str, float]:
    """The most that was allocated on this process's card, in GB; nothing on a CPU."""
    return {"memory_gb": torch.cuda.max_memory_allocated(device) / 1e9} if device.type == "cuda" else {}


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


def in_parallel(model: nn.Module) -> nn.Module:
    """The model with its gradients averaged over the processes; itself when alone. Every parameter must get one."""
    if world_size() == 1:
        return model
    # Buffers wait for `broadcast_buffers`: no training step reads a batch norm's statistics.
    return DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)


def mean(numbers: Tensor) -> Tensor:
    """The mean of all processes' tensors of one shape, without gradient."""
    share = numbers.detach() / world_size()
    dist.all_reduce(share)
    return share


def broadcast_buffers(model: nn.Module) -> None:
    """Rank 0's buffers, on every process: batch norm's statistics are otherwise each process's own."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


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
