"""TEL, the baseline that PIR's modules are compared to: one plain transformer encoder layer over a side's tokens.

The paper's Table 1 has a row VSE2+TEL and says no more of it; that a layer corrects each side's summary where PIR's
progressive attention would is our reading. No prior takes part.
"""

from torch import Tensor, nn


class EncoderLayer(nn.Module):
    """Torch's own encoder layer as it comes (Vaswani et al. 2017): tokens to a correction `[B, D]`."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, batch_first=True)
        self.head = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens `[B, L, D]` with the summary first, mask `[B, L]` true where attended (None: all) -> `[B, D]`."""
        padding = None if mask is None else ~mask.bool()
        return self.head(self.layer(tokens, src_key_padding_mask=padding)[:, 0])
