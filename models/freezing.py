"""Encoders of which only the last part is trained."""

from timm.models import group_parameters
from torch import nn
from transformers import PreTrainedModel

from models.backbones import TimmModel
from utils.errors import InputError


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
    count = text_encoder.config.num_hidden_layers
    stacks = [m for m in text_encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not stacks:
        raise InputError(f"text_trained_layers: {type(text_encoder).__name__} keeps no list of its {count} layers")
    if layers > count:
        raise InputError(f"text_trained_layers {layers}: the text encoder has {count} layers")
    text_encoder.requires_grad_(False)
    stacks[0][count - layers :].requires_grad_(True)
