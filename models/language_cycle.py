"""Language Cycle Attention (LCA): Temporal-PAE, each step activated by the one before (SPEC 2)."""

from torch import Tensor, nn

from models.attention import AttentionUnit


class LanguageCycle(nn.Module):
    """Temporal-PAE: caption tokens attended in a cycle, to a correction `[B, D]`.

    cycle: each unit's cross attention is queried by the step before; False: by what its own self-attention gave, so
    that the same parameters are plain self-attention units and the cycle's own worth can be measured.
    """

    def __init__(self, dim: int, units: int, heads: int, dropout: float, *, cycle: bool = True) -> None:
        super().__init__()
        self.cycle = cycle
        self.mapping = nn.ModuleList(nn.Linear(dim, dim) for _ in range(units))
        self.self_attention = nn.ModuleList(AttentionUnit(dim, heads, dropout) for _ in range(units))
        self.cross_attention = nn.ModuleList(AttentionUnit(dim, heads, dropout) for _ in range(units))
        self.head = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens `[B, L, D]` with [CLS] first, mask `[B, L]` true where attended (None: all) -> `[B, D]`."""
        for mapping, self_attention, cross_attention in zip(
            self.mapping, self.self_attention, self.cross_attention, strict=True
        ):
            attended = self_attention(tokens, tokens, mask)
            activation = tokens if self.cycle else attended
            tokens = cross_attention(attended, query=mapping(activation), mask=mask)
        return self.head(tokens[:, 0])
