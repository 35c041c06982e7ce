"""PIR's heads: what corrects the summary of a picture or of a caption, `[B, L, D]` -> `[B, D]`.

Vision Instruction Representation (VIR, Spatial-PAE) and Language Cycle Attention (LCA, Temporal-PAE) are built from one
attention unit (paper section 3.2; docs/behaviour.md, 2).
Whatever the head, the first token is the summary, and the correction is read from its place.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.belief import most_believed


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


class ProgressiveAttention(nn.Module):
    """PAE, the parts that VIR and LCA share: in each step tokens attend themselves, then under an activation."""

    def __init__(self, dim: int, units: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.mapping = nn.ModuleList(nn.Linear(dim, dim) for _ in range(units))
        self.self_attention = nn.ModuleList(AttentionUnit(dim, heads, dropout) for _ in range(units))
        self.cross_attention = nn.ModuleList(AttentionUnit(dim, heads, dropout) for _ in range(units))
        self.head = nn.Linear(dim, dim)


class VisionInstruction(ProgressiveAttention):
    """VIR, Spatial-PAE: the picture tokens that the prior believes in, attended under the prior's instruction.

    soft: all tokens, weighed by belief (`weight` and `norm` of `weighed_by_belief`), in place of the `filter_size` most
    believed.
    """

    def __init__(
        self, dim: int, units: int, filter_size: int, heads: int, dropout: float, soft: tuple[str, str] | None = None
    ) -> None:
        super().__init__(dim, units, heads, dropout)
        self.filter_size, self.soft = filter_size, soft

    def forward(self, tokens: Tensor, instruction: Tensor) -> Tensor:
        """tokens `[B, N, D]` with the summary first, instruction `[B, 1, D]` -> `[B, D]`."""
        if self.soft:
            from models.soft_belief import weighed_by_belief  # which few configs ask for

            kept = weighed_by_belief(tokens, instruction, *self.soft)  # [B, N, D]
        else:
            kept = most_believed(tokens, instruction, self.filter_size)  # [B, F, D]
        for mapping, attend, activate in zip(self.mapping, self.self_attention, self.cross_attention, strict=True):
            attended = attend(kept, kept)
            kept = activate(attended, query=mapping(instruction).expand_as(attended))
        return self.head(kept[:, 0])


class LanguageCycle(ProgressiveAttention):
    """LCA, Temporal-PAE: caption tokens attended in a cycle, each step activated by the one before.

    cycle: False has each unit's cross attention queried by what its own self-attention gave, so that the same
    parameters are plain self-attention units and the cycle's own worth can be measured.
    """

    def __init__(self, dim: int, units: int, heads: int, dropout: float, *, cycle: bool = True) -> None:
        super().__init__(dim, units, heads, dropout)
        self.cycle = cycle

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens `[B, L, D]` with the summary first, mask `[B, L]` true where attended (None: all) -> `[B, D]`."""
        for mapping, attend, activate in zip(self.mapping, self.self_attention, self.cross_attention, strict=True):
            attended = attend(tokens, tokens, mask)
            activation = tokens if self.cycle else attended
            tokens = activate(attended, query=mapping(activation), mask=mask)
        return self.head(tokens[:, 0])
