"""SigLIP's loss: whether a picture and a caption belong together, asked of each pair by itself (Zhai et al. 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.gathering import Counts, gather, global_mean, own_places, with_gradient, with_mean_gradient
from utils.processes import world_size


def sigmoid_loss(
    v: Tensor,
    t: Tensor,
    temp: Tensor | float,
    bias: Tensor,
    idx: Tensor | None = None,
    *,
    gather_grad: str = "local",
    counts: Counts = None,
) -> Tensor:
    """Of all pairs in the batch of all processes, the sum over a picture's captions, the mean over pictures.

    v, t: unit features `[B, D]`; bias: added to each similarity divided by temp; idx `[B]`: picture ids, whose captions
    are all a picture's own (None: the one beside it). gather_grad and counts as in `models.losses`.
    """
    v, t = with_gradient(v, gather_grad), with_gradient(t, gather_grad)
    similarity = v @ gather(t, counts).T  # [B, N]
    logits = similarity / with_mean_gradient(temp) + with_mean_gradient(bias)  # [B, N]
    picture = torch.arange(logits.shape[1], device=v.device) if idx is None else gather(idx, counts)  # [N]
    belongs = 2.0 * (picture[own_places(v, counts), None] == picture) - 1  # [B, N]
    return global_mean(-F.logsigmoid(belongs * logits).sum() * world_size() / logits.shape[1])
