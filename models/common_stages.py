"""The first stages of a picture encoder that are its prior's too, computed once for both.

An encoder and a prior that start from the same weights, as in the light presets, have the stages in common that neither
trains. Their features are the same numbers, at the highest resolution and so the larger part of the work.
"""

from itertools import chain
from typing import cast

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from models.encoders import InstructionEncoder, VisionEncoder


class CommonStages:
    """What the two encoders of a model have in common; asked anew after every change of their weights."""

    def __init__(self, vision_encoder: VisionEncoder, instruction_encoder: InstructionEncoder) -> None:
        self.vision, self.prior = vision_encoder, instruction_encoder
        self.pairs = list(zip(_stages(vision_encoder.backbone), _stages(instruction_encoder.backbone), strict=False))
        if vision_encoder.own_normalisation != instruction_encoder.own_normalisation:
            self.pairs = []
        self.equal = 0  # first stages with equal weights
        self.seen: list[tuple[int, int]] | None = None  # the weights that were compared, as `_version` tells them

    def count(self) -> int:
        """How many of the first stages are now the same and fixed, batch norm included."""
        fixed = 0
        for one, other in self.pairs:
            trained = any(p.requires_grad for stage in (one, other) for p in stage.parameters())
            if trained or any(norm.training for norm in _norms(one, other)):
                break
            fixed += 1
        if not fixed:
            return 0
        pairs = self.pairs[:fixed]
        weights = [t for pair in pairs for stage in pair for t in chain(stage.parameters(), stage.buffers())]
        seen = [(tensor.data_ptr(), tensor._version) for tensor in weights]
        if seen != self.seen:
            self.equal = next((i for i, pair in enumerate(pairs) if not _same(*pair)), fixed)
            self.seen = seen
        return min(self.equal, fixed)

    def features(self, images: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Pictures `[B, 3, H, W]` -> the picture encoder's features `[B, C, h, w]` and the prior's `[B, width]`."""
        with torch.no_grad():
            x = nn.Sequential(*_stages(self.vision.backbone)[:count])(self.vision.prepared(images))
            prior = cast(EfficientNet, self.prior.backbone).forward_head(_rest(self.prior.backbone, x, count))
        return _rest(self.vision.backbone, x, count), prior


def _stages(backbone: nn.Module) -> list[nn.Module]:
    """The stages that come one after another; none of a network of a kind that is not known here."""
    return [backbone.conv_stem, backbone.bn1, *backbone.blocks] if isinstance(backbone, EfficientNet) else []


def _rest(backbone: nn.Module, x: Tensor, count: int) -> Tensor:
    """What follows the first `count` stages, up to the features."""
    last = cast(EfficientNet, backbone)
    return nn.Sequential(*_stages(backbone)[count:], last.conv_head, last.bn2)(x)


def _norms(*stages: nn.Module) -> list[nn.Module]:
    return [m for stage in stages for m in stage.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two stages are built alike and have equal weights."""
    ours, theirs = one.state_dict(), other.state_dict()
    return str(one) == str(other) and all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if "num_batches" not in name
    )
