"""The exponential moving average of a model's weights."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """The average of weights and buffers, to be updated after each step; None with decay 0, which asks for none."""
    if not decay:
        return None

    def step(average: Tensor, now: Tensor, _: Tensor | int) -> Tensor:
        # Whole numbers (positions, counters) have no average.
        return average.lerp(now, 1 - decay) if average.is_floating_point() else now

    return AveragedModel(model, avg_fn=step, use_buffers=True)
