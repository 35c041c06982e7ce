"""What a prior believes of a picture's tokens: its instruction against each, the tokens kept or weighed by it.

tokens `[B, N, D]`, instruction `[B, 1, D]`; the belief is the softmax of their products over the N tokens, unscaled.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def most_believed(tokens: Tensor, instruction: Tensor, count: int) -> Tensor:
    """The `count` tokens that agree most with the instruction, in falling order of belief, `[B, count, D]`.

    The belief ranks and is not differentiated; the kept tokens are.
    """
    kept = _belief(tokens, instruction).topk(count, dim=1).indices  # [B, count]
    return tokens.gather(1, kept.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def weighed_by_belief(tokens: Tensor, instruction: Tensor, weight: str, norm: str) -> Tensor:
    """Each token times its weight, `[B, N, D]` (PriorCLIP).

    weight: `belief` alone, as before October 2024; `rank`, the belief and `1 / sqrt(1 + rank)`; `released` has that
    second part from the order's indices, not the ranks: token j gets the one of the number of the token at rank j.
    norm: what is then divided by its length, each of the `channels` over the tokens (`tokens`), each token over the
    channels (`channels`), nothing (`none`).
    """
    belief = _belief(tokens, instruction)  # [B, N]
    if weight != "belief":
        order = belief.argsort(dim=1, descending=True)  # [B, N]
        places = order if weight == "released" else order.argsort(dim=1)
        belief = belief + (places + 1).to(belief.dtype).rsqrt()
    tokens = belief.unsqueeze(2) * tokens
    return tokens if norm == "none" else F.normalize(tokens, dim=1 if norm == "tokens" else 2)


def _belief(tokens: Tensor, instruction: Tensor) -> Tensor:
    """`[B, N]`."""
    return torch.bmm(tokens, instruction.transpose(1, 2)).squeeze(2).softmax(dim=1)
