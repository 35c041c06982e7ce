"""All of a picture's tokens, weighed by what a prior believes of them (PriorCLIP)."""

import torch.nn.functional as F
from torch import Tensor

from models.belief import belief_in


def weighed_by_belief(tokens: Tensor, instruction: Tensor, weight: str, norm: str) -> Tensor:
    """Each token times its weight, `[B, N, D]`; tokens `[B, N, D]`, instruction `[B, 1, D]`.

    weight: `belief` alone, as before October 2024; `rank`, the belief and `1 / sqrt(1 + rank)`; `released` has that
    second part from the order's indices, not the ranks: token j gets the one of the number of the token at rank j.
    norm: what is then divided by its length, each of the `channels` over the tokens (`tokens`), each token over the
    channels (`channels`), nothing (`none`).
    """
    belief = belief_in(tokens, instruction)  # [B, N]
    if weight != "belief":
        order = belief.argsort(dim=1, descending=True)  # [B, N]
        places = order if weight == "released" else order.argsort(dim=1)
        belief = belief + (places + 1).to(belief.dtype).rsqrt()
    tokens = belief.unsqueeze(2) * tokens
    return tokens if norm == "none" else F.normalize(tokens, dim=1 if norm == "tokens" else 2)
