"""The networks inside the encoders, from timm and transformers, with random weights, and what is fixed of them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import timm
import torch
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from utils.errors import InputError, reason, shown


class TimmModel(nn.Module):
    """What is used of a picture network beside what every module has; timm's own types do not say it."""

    num_features: int
    pretrained_cfg: Mapping[str, Any]  # `mean` and `std` of its pictures, `classifier`: the last layer's name
    forward_features: Callable[[Tensor], Tensor]  # [B, 3, H, W] -> [B, h, w, C], [B, C, h, w] or [B, N, C]
    group_matcher: Callable[..., Mapping[str, Any]]  # its stages
    set_grad_checkpointing: Callable[[], None]


def swin(
    image_res: int,
    patch_size: int,
    window_size: int,
    embed_dim: int,
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
) -> TimmModel:
    """The released Swin: MLP ratio 4, qkv bias, drop path 0.1; `[B, 3, H, W]` -> `[B, h, w, width]`."""
    network = SwinTransformer(
        img_size=image_res,
        patch_size=patch_size,
        window_size=window_size,
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
        drop_path_rate=0.1,
        num_classes=0,
        global_pool="",
    )
    return cast(TimmModel, network)


def vit_small(image_res: int, patch_size: int) -> TimmModel:
    """The released ViT-S: width 384, depth 12 and, unlike DeiT-S's 6, 12 heads."""
    network = VisionTransformer(
        img_size=image_res,
        patch_size=patch_size,
        embed_dim=384,
        depth=12,
        num_heads=12,
        num_classes=0,
        global_pool="",
    )
    return cast(TimmModel, network)


def timm_backbone(name: str, *, image_res: int, pooled: bool) -> TimmModel:
    """Any timm model by name, random weights, without its classifier; `pooled` with its global pooling."""
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise InputError(f"timm has no model {shown(name)}" + (f"; near it: {', '.join(near)}" if near else ""))
    options = {"num_classes": 0} if pooled else {"num_classes": 0, "global_pool": ""}
    try:
        try:
            network = timm.create_model(name, pretrained=False, img_size=image_res, **options)
        except TypeError:  # a convolution takes pictures of any size and has no such argument
            network = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # a tag that it has not, a size of picture: as the model's author raises it
        tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
        known = f"; tags: {', '.join(tags[:5])}" if "tag" in str(error) else ""
        raise InputError(
            f"timm cannot build {shown(name)} for pictures of {image_res}: {reason(error):.200}{known}"
        ) from None
    return cast(TimmModel, network)


def bert_like(sizes: Mapping[str, Any]) -> PreTrainedModel:
    """A transformers encoder of these sizes (`model_type`: bert unless said), random weights, without pooler."""
    sizes = dict(sizes)
    try:
        config = AutoConfig.for_model(sizes.pop("model_type", "bert"), **sizes)
        # transformers declares a pair, which is what its mapping of tokenizers holds.
        kind = cast(type[PreTrainedModel], AutoModel._model_mapping[type(config)])
        poolerless = "add_pooling_layer" in inspect.signature(kind).parameters
        model = kind(config, add_pooling_layer=False) if poolerless else kind(config)
        if isinstance(pooler := getattr(model, "pooler", None), nn.Module):
            pooler.requires_grad_(False)  # nothing reads it, and a training in parallel would wait for its gradient
        # transformers would leave the padding's embedding untrained; where padding is attended it is a word like any.
        cast(nn.Embedding, model.get_input_embeddings()).padding_idx = None
    except Exception as error:  # each value has a check of its own in transformers, or in torch, or none
        raise InputError(f"text_config: {reason(error):.200}") from None
    return model


def keep_depthwise_in_float32(backbone: nn.Module) -> None:
    """Take a backbone's depthwise convolutions out of a CPU's bf16 autocast.

    Their backward is 2 to 14 times slower in bf16 than in float32 there; other convolutions gain from it.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            autocast = _CpuAutocast()
            module.register_forward_pre_hook(autocast.leave)
            module.register_forward_hook(autocast.return_to, always_call=True)


class _CpuAutocast:
    """The hooks of one convolution."""

    left = False

    def leave(self, module: nn.Conv2d, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        differentiated = torch.is_grad_enabled() and (inputs[0].requires_grad or module.weight.requires_grad)
        self.left = differentiated and inputs[0].device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not self.left:
            return None
        torch.set_autocast_enabled("cpu", False)
        return (inputs[0].float(),)

    def return_to(self, *_: Any) -> None:
        if self.left:
            torch.set_autocast_enabled("cpu", True)


def fuse_window_attention(backbone: nn.Module, fused: bool) -> None:
    """Have a Swin's attention in one call of torch's, or step by step.

    In one call is faster by a fifth of the encoder's time, but where its position bias has to get a gradient: torch
    then takes it apart itself, and in bf16 that is slower than timm's steps.
    """
    for module in backbone.modules():
        if isinstance(module, WindowAttention):
            module.fused_attn = fused  # type: ignore[misc]  # final for scripting, which is not done here


def fix_batch_norm(model: nn.Module) -> None:
    """Have batch norm use its running statistics, and keep them, until the next `train()`."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
