"""Encoders of which only a part is trained."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from timm.models import group_parameters
from torch import nn
from transformers import PreTrainedModel

from models.backbones import TimmModel
from utils.errors import InputError

if TYPE_CHECKING:
    from models.encoders import VisionEncoder


def freeze_all_but_last(backbone: TimmModel, stages: int) -> None:
    """Leave only a timm model's last `stages` stages trained (what follows the last belongs to it)."""
    grouped = group_parameters(backbone, backbone.group_matcher(coarse=True), reverse=False)
    if not 1 <= stages <= len(grouped):
        raise InputError(f"{stages} trained stages: the picture encoder has {len(grouped)} stages (stem included)")
    trained = {name for stage in sorted(grouped)[-stages:] for name in grouped[stage]}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in trained)


def freeze_all_but_last_layers(text_encoder: PreTrainedModel, layers: int) -> None:
    """Leave only a transformers encoder's last `layers` layers trained; its embeddings are frozen with the others."""
    stack = layers_of(text_encoder)
    if not stack:
        raise InputError(f"text_trained_layers: {type(text_encoder).__name__} keeps no list of its layers")
    if layers > len(stack):
        raise InputError(f"text_trained_layers {layers}: the text encoder has {len(stack)} layers")
    text_encoder.requires_grad_(False)
    stack[len(stack) - layers :].requires_grad_(True)


def layers_of(text_encoder: PreTrainedModel) -> nn.ModuleList:
    """A transformers encoder's layers; none where it keeps no list of them."""
    count = text_encoder.config.num_hidden_layers
    stacks = [m for m in text_encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    return stacks[0] if stacks else nn.ModuleList()


def stages_of(backbone: nn.Module) -> Iterator[nn.Module]:
    """A timm model's blocks and stages, inner ones first."""
    for stack in backbone.children():
        for stage in stack if isinstance(stack, nn.Sequential | nn.ModuleList) else ():
            blocks = getattr(stage, "blocks", ())  # of a Swin or a ConvNeXt; a ViT's blocks are the stages
            yield from (part for part in (*blocks, stage) if next(part.parameters(), None) is not None)


def freeze_unreached(encoder: "VisionEncoder", image_res: int) -> int:
    """Fix the parameters that an encoder's tokens do not depend on, as those of a norm behind them; how many tokens.

    They would get no gradient, which a training in parallel waits for. One picture's graph tells, none is computed.
    """
    with torch.enable_grad():
        tokens = encoder.eval()(torch.zeros(1, 3, image_res, image_res))  # [1, 1 + N, width]
    if tokens.grad_fn is None:  # nothing is trained, or the model is made in inference mode
        return tokens.shape[1]
    reached: set[Any] = set()
    waiting: list[Any] = [tokens.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in reached:
            reached.add(node)
            waiting += [following for following, _ in node.next_functions]
    used = {id(node.variable) for node in reached if hasattr(node, "variable")}
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in used)
    return tokens.shape[1]
