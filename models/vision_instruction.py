"""Vision Instruction Representation (VIR): belief matrix, filtering, Spatial-PAE (SPEC 2; paper section 3.2)."""

from torch import Tensor, nn

from models.attention import AttentionUnit


def most_believed(tokens: Tensor, instruction: Tensor, count: int) -> Tensor:
    """The `count` tokens that agree most with the instruction, in falling order of belief.

    tokens `[B, N, D]`, instruction `[B, 1, D]` -> `[B, count, D]`. The belief ranks and is not
    differentiated; the kept tokens are.
    """
    belief = (tokens @ instruction.transpose(1, 2)).squeeze(2).softmax(dim=1)  # [B, N]
    kept = belief.topk(count, dim=1).indices  # [B, count]
    return tokens.gather(1, kept.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


class VisionInstruction(nn.Module):
    """Spatial-PAE: filtered picture tokens, attended under the prior's instruction, to a correction `[B, D]`."""

    def __init__(self, dim: int, units: int, filter_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.filter_size = filter_size
        self.mapping = nn.ModuleList(nn.Linear(dim, dim) for _ in range(units))
        self.self_attention = nn.ModuleList(AttentionUnit(dim, heads, dropout) for _ in range(units))
        self.cross_attention = nn.ModuleList(AttentionUnit(dim, heads, dropout) for _ in range(units))
        self.head = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, instruction: Tensor) -> Tensor:
        """tokens `[B, N, D]` with the summary first, instruction `[B, 1, D]` -> `[B, D]`."""
        kept = most_believed(tokens, instruction, self.filter_size)  # [B, F, D]
        for mapping, self_attention, cross_attention in zip(
            self.mapping, self.self_attention, self.cross_attention, strict=True
        ):
            attended = self_attention(kept, kept)
            kept = cross_attention(attended, query=mapping(instruction).expand_as(attended))
        return self.head(kept[:, 0])
