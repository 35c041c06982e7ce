"""A config's encoders as anyone takes them from timm and transformers: eager, float32, without a measure of ours."""

from dataclasses import dataclass
from typing import cast

import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from transformers import AutoConfig, AutoModel

from models.backbones import TimmModel, vit_small
from models.pir import PIR
from utils.config import Config
from utils.errors import InputError


@dataclass(frozen=True)
class PlainEncoders:
    """Of the released config: Swin-T, ResNet-50 and BERT-base, without classifier and pooler, random weights."""

    vision: TimmModel
    prior: nn.Module | None  # None where the config has no VIR
    text: nn.Module

    def train(self, config: Config) -> None:
        """Training mode, of the prior as configured."""
        self.vision.train()
        self.text.train()
        if self.prior:
            self.prior.train(config.finetune_conv or config.prior_batch_stats)

    def take_weights(self, model: PIR) -> None:
        """Evaluation mode, with our model's weights."""
        self.vision.load_state_dict(model.vision_encoder.backbone.state_dict())
        self.text.load_state_dict(model.text_encoder.backbone.state_dict())
        if self.prior:
            self.prior.load_state_dict(model.instruction_encoder.backbone.state_dict())
        for network in filter(None, (self.vision, self.prior, self.text)):
            network.eval()

    def step(self, config: Config, images: torch.Tensor, ids: torch.Tensor) -> None:
        """Forward, and backward from a sum of the outputs but for a prior that is not trained.

        images `[B, 3, H, W]`, ids `[B, L]`, which are all attended.
        """
        for network in filter(None, (self.vision, self.prior, self.text)):
            network.zero_grad()
        outputs = [self.vision(images), self.text(ids).last_hidden_state]
        if self.prior:
            with torch.set_grad_enabled(config.finetune_conv):
                outputs.append(self.prior(images))
        sum(output.sum() for output in outputs).backward()


def plain_encoders(config: Config) -> PlainEncoders:
    """The encoders of a config. Raises InputError for a text encoder that transformers does not know."""
    sizes = config.vision_config
    if sizes.backbone:
        vision = timm.create_model(sizes.backbone, num_classes=0)
    elif config.use_swin:
        vision = SwinTransformer(
            img_size=config.image_res,
            patch_size=sizes.patch_size,
            window_size=sizes.window_size,
            embed_dim=sizes.embed_dim,
            depths=sizes.depths,
            num_heads=sizes.num_heads,
            drop_path_rate=0.1,
            num_classes=0,
        )
    else:
        vision = vit_small(config.image_res, config.patch_size)
    prior = timm.create_model(config.prior_backbone, num_classes=0) if config.has_vir else None
    kind, words = config.text_config.get("model_type", "bert"), dict(config.text_config)
    if kind != "bert":
        raise InputError(f"text_config: the benchmarks compare with BERTs, and this is {kind}")
    words.pop("model_type", None)
    text = AutoModel.from_config(AutoConfig.for_model(kind, **words), add_pooling_layer=False)
    return PlainEncoders(cast(TimmModel, vision), prior, text)
