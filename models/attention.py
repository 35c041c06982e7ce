"""The progressive attention unit that both sides share (SPEC 2; paper section 3.2, PAE)."""

import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Multi-head attention with separate linears for value, key and query and one that merges the heads."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.linear_v = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim)
        self.linear_q = nn.Linear(dim, dim)
        self.linear_merge = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens `[B, L, D]` (values and keys), query `[B, Q, D]`, mask `[B, L]` true where attended."""
        v, k, q = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, L or Q, D / heads]
            for linear, x in ((self.linear_v, tokens), (self.linear_k, tokens), (self.linear_q, query))
        )
        keys_seen = None if mask is None else mask[:, None, None, :].bool()
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=keys_seen, dropout_p=dropout)
        return self.linear_merge(out.transpose(1, 2).flatten(2))  # [B, Q, D]


class AttentionUnit(nn.Module):
    """SA and CA in one form: SA(x) is `unit(x, x)`; the released CA(x, y) is `unit(y, x)`.

    The tokens are values, keys and the residual; the query only steers. With a query of another length than
    the tokens the residual would not fit, so both have the same.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads, dropout)
        # Numbered, not named: weight decay goes by name, and the released one decays this inner LayerNorm.
        self.ffn = nn.Sequential(nn.Linear(dim, 2 * dim), nn.LayerNorm(2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens and query `[B, L, D]`, mask `[B, L]` true where attended -> `[B, L, D]`."""
        tokens = self.norm1(tokens + self.dropout(self.attention(tokens, query, mask)))
        return self.norm2(tokens + self.dropout(self.ffn(tokens)))
