"""Warm-up and decay (docs/behaviour.md, 4)."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from utils.config_parts import SchedularConfig


def create_scheduler(
    config: SchedularConfig, optimizer: Optimizer, *, steps_per_epoch: int, epochs: int | None = None
) -> LambdaLR:
    """Linear warm-up from 0, then linear or along a cosine to 0.

    Step it after each optimizer step (the first has lr 0).

    epochs: those of the config unless given.
    """
    steps = steps_per_epoch * (config.epochs if epochs is None else epochs)
    warmup = config.num_warmup_steps
    warmup = int(steps * warmup) if warmup < 1 else int(warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        left = max(0.0, (steps - step) / max(1, steps - warmup))
        return left if config.sched == "linear" else (1 - math.cos(math.pi * left)) / 2

    return LambdaLR(optimizer, factor)
