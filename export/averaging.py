"""The mean of trained models' weights, one model in place of several (Wortsman et al. 2022, "Model soups")."""

from collections.abc import Sequence

import torch

from models.embedder import Embedder
from models.released import load_released
from utils.checkpoint import read_checkpoint
from utils.errors import InputError
from utils.output import weights_in


@torch.no_grad()
def average_with(model: Embedder, checkpoints: Sequence[str]) -> None:
    """Make the model's weights the mean of its own and those of `checkpoints`, which are of the same architecture.

    A mean is of use where the trainings began with the same weights and ended near each other: measure it. Counters
    stay the model's own. Raises InputError where weights do not fit.
    """
    mean = {name: tensor.double() for name, tensor in model.model.state_dict().items() if tensor.is_floating_point()}
    counters = {name: tensor.clone() for name, tensor in model.model.state_dict().items() if name not in mean}
    for checkpoint in checkpoints:
        weights = weights_in(checkpoint)
        try:
            load_released(model.model, read_checkpoint(weights))
        except InputError as error:
            raise InputError(f"--average_with {checkpoint}: {error}") from None
        for name, tensor in model.model.state_dict().items():
            if name in mean:
                mean[name] += tensor
    # Of equal tensors the mean is the very tensor: the sum in double precision is exact.
    model.model.load_state_dict(
        counters | {name: (tensor / (1 + len(checkpoints))).float() for name, tensor in mean.items()}
    )
