"""What the paper's Table 1 compares PIR with, and PIR itself has no use for: the triplet loss and TEL (VSE2+TEL)."""

import torch
from torch import Tensor, nn

from models.gathering import Counts, gather, global_mean, own_places, with_gradient
from utils.processes import world_size


def triplet_loss(
    v: Tensor,
    t: Tensor,
    margin: float = 0.2,
    hardest: bool = False,
    *,
    gather_grad: str = "local",
    counts: Counts = None,
) -> Tensor:
    """Triplet loss over the global similarity matrix, both directions (VSE++, Faghri et al. 2018).

    v, t `[B, D]`, gather_grad and counts as of `models.losses`.
    The sum over all violations of the margin, or over the hardest of each row and column.
    """
    v, t = with_gradient(v, gather_grad), with_gradient(t, gather_grad)
    place = own_places(v, counts)[:, None]
    total = v.new_zeros(())
    for scores in (v @ gather(t, counts).T, t @ gather(v, counts).T):  # [B, N]
        own = torch.zeros_like(scores, dtype=torch.bool).scatter(1, place, True)
        wrong = (margin + scores - scores.gather(1, place)).clamp(min=0).masked_fill(own, 0)
        total = total + (wrong.max(dim=1).values.sum() if hardest else wrong.sum())
    return global_mean(total * world_size())


class EncoderLayer(nn.Module):
    """TEL: one plain transformer encoder layer over a side's tokens, where PIR has its progressive attention.

    Torch's own layer as it comes (Vaswani et al. 2017). The paper's Table 1 has a row VSE2+TEL and says no more of it;
    that the layer corrects each side's summary, without a prior, is our reading.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, batch_first=True)
        self.head = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens `[B, L, D]` with the summary first, mask `[B, L]` true where attended (None: all) -> `[B, D]`."""
        padding = None if mask is None else ~mask.bool()
        return self.head(self.layer(tokens, src_key_padding_mask=padding)[:, 0])
