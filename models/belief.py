"""What a prior believes of a picture's tokens: its instruction against each, and the tokens kept by it.

tokens `[B, N, D]`, instruction `[B, 1, D]`; the belief is the softmax of their products over the N tokens, unscaled.
"""

import torch
from torch import Tensor


def most_believed(tokens: Tensor, instruction: Tensor, count: int) -> Tensor:
    """The `count` tokens that agree most with the instruction, in falling order of belief, `[B, count, D]`.

    The belief ranks and is not differentiated; the kept tokens are.
    """
    kept = belief_in(tokens, instruction).topk(count, dim=1).indices  # [B, count]
    return tokens.gather(1, kept.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def belief_in(tokens: Tensor, instruction: Tensor) -> Tensor:
    """How much of the belief each token has, `[B, N]`."""
    return torch.bmm(tokens, instruction.transpose(1, 2)).squeeze(2).softmax(dim=1)
