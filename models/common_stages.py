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
    """How many stages two encoders have in common; their weights are compared again only when they have changed."""

    def __init__(self) -> None:
        self.equal = 0  # first stages with equal weights
        self.seen: list[tuple[int, int]] | None = None  # the weights that were compared, as `_version` tells them

    def __call__(self, vision: VisionEncoder, prior: InstructionEncoder, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures `[B, 3, H, W]` -> what the two encoders give: `[B, 1 + N, width]` and `[B, width]`."""
        count = self.count(vision, prior)
        if not count:
            return vision(images), prior(images)
        x = nn.Sequential(*_stages(vision.backbone)[:count])(vision.prepared(images))
        with torch.set_grad_enabled(prior.finetune and torch.is_grad_enabled()):
            instruction = cast(EfficientNet, prior.backbone).forward_head(_rest(prior.backbone, x, count))
        return vision.tokens_of(_rest(vision.backbone, x, count)), instruction

    def count(self, vision: VisionEncoder, prior: InstructionEncoder) -> int:
        """How many of the first stages are now the same and fixed, their batch norm included."""
        if torch.compiler.is_compiling() or vision.own_normalisation != prior.own_normalisation:
            return 0
        if getattr(vision.backbone, "grad_checkpointing", False):  # which only its own way through the stages does
            return 0
        fixed = []
        for pair in zip(_stages(vision.backbone), _stages(prior.backbone), strict=False):
            if any(p.requires_grad for stage in pair for p in stage.parameters()):
                break
            if any(module.training for stage in pair for module in stage.modules() if _draws(module)):
                break
            fixed.append(pair)
        weights = [t for pair in fixed for stage in pair for t in chain(stage.parameters(), stage.buffers())]
        counted = all(not tensor.is_inference() for tensor in weights)  # changes of other tensors are not counted
        seen = [(tensor.data_ptr(), tensor._version) for tensor in weights] if counted else None
        if seen is None or seen != self.seen:
            self.equal = next((i for i, pair in enumerate(fixed) if not _same(*pair)), len(fixed))
            self.seen = seen
        return self.equal


def _stages(backbone: nn.Module) -> list[nn.Module]:
    """The stages that come one after another; none of a network of a kind that is not known here."""
    return [backbone.conv_stem, backbone.bn1, *backbone.blocks] if isinstance(backbone, EfficientNet) else []


def _rest(backbone: nn.Module, x: Tensor, count: int) -> Tensor:
    """What follows the first `count` stages, up to the features."""
    last = cast(EfficientNet, backbone)
    return nn.Sequential(*_stages(backbone)[count:], last.conv_head, last.bn2)(x)


def _draws(module: nn.Module) -> bool:
    """Whether in training a module depends on the batch or on chance."""
    chance = type(module).__name__.startswith("Drop")  # timm has several of its own
    return chance or isinstance(module, nn.modules.batchnorm._BatchNorm)


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two stages are built alike and have equal weights."""
    ours, theirs = one.state_dict(), other.state_dict()
    return str(one) == str(other) and all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if "num_batches" not in name
    )
