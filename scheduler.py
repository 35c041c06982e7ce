"""Warm-up and decay (docs/behaviour.md, 4)."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from utils.config import SchedularConfig


def create_scheduler(
    config: SchedularConfig, optimizer: Optimizer, *, steps_per_epoch: int, epochs: int | None = None
) -> LambdaLR:
    """Linear warm-up from 0, then linear to 0; step it after each optimizer step (the first has lr 0).

    epochs: those of the config unless given.
    """
    steps = steps_per_epoch * (config.epochs if epochs is None else epochs)
    warmup = config.num_warmup_steps
    warmup = int(steps * warmup) if warmup < 1 else int(warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return LambdaLR(optimizer, factor)
