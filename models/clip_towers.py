"""A CLIP tower pair of open_clip, random weights: what PIR's modules need of one, whatever kind it is."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from timm.models import group_parameters
from torch import Tensor, nn

from models.backbones import TimmModel
from utils.clip_config import PRIOR, clip_description
from utils.errors import InputError, reason, shown

Pair: TypeAlias = Any  # open_clip.CLIP or open_clip.CustomTextCLIP, whose parts have no types of their own
# Groups of parameters by their names, in timm's form, of open_clip's own picture towers.
VIT_GROUPS: dict[str, Any] = {
    "stem": r"(?:class_embedding|positional_embedding|conv1|ln_pre)\b",
    "blocks": [(r"transformer\.resblocks\.(\d+)", None), (r"ln_post\b", (99999,))],  # timm's mark of the group before
}
RESNET_GROUPS: dict[str, Any] = {"stem": r"(?:conv|bn)\d", "stages": r"layer(\d+)\."}


def tower_pair(name: str, description: Mapping[str, Any], image_res: int) -> Pair:
    """The open_clip model of a description in the form of its JSON files, for pictures of `image_res` pixels."""
    sizes = {key: value for key, value in description.items() if key not in ("custom_text", "preprocess")}
    sizes["vision_cfg"] = sizes["vision_cfg"] | {"image_size": image_res, "timm_model_pretrained": False}
    if "multimodal_cfg" in sizes or "hf_model_name" in sizes["text_cfg"]:
        raise InputError(
            f"clip_model {shown(name)} has a text tower that is not open_clip's own, which is unknown here"
        )
    try:
        vision, text = CLIPVisionCfg(**sizes.pop("vision_cfg")), CLIPTextCfg(**sizes.pop("text_cfg"))
        pair = (open_clip.CustomTextCLIP if description.get("custom_text") else open_clip.CLIP)(
            vision_cfg=vision, text_cfg=text, **sizes
        )
    except Exception as error:  # each size has a check of its own in open_clip, timm or torch, or none
        raise InputError(f"clip_model {shown(name)} cannot be built: {reason(error):.200}") from None
    if isinstance(pair.visual, ModifiedResNet) and pair.visual.attnpool is None:
        raise InputError(f"clip_model {shown(name)} has a ResNet without attention pooling")
    return pair


def clip_resnet(backbone: str, image_res: int, width: int | None) -> TimmModel:
    """The picture tower of a CLIP model with a ResNet, `clip:RN50`, as a prior: `[B, 3, H, W]` -> `[B, width]`."""
    description = clip_description(backbone.removeprefix(PRIOR))
    vision = description["vision_cfg"]
    if not isinstance(vision.get("layers"), list):
        raise InputError(f"prior_backbone {shown(backbone)} has no ResNet; CLIP models with one: RN50, RN101, RN50x4")
    channels = vision.get("width", 64)
    network = ModifiedResNet(
        layers=vision["layers"],
        output_dim=width or description["embed_dim"],
        heads=channels * 32 // vision.get("head_width", 64),
        image_size=image_res,
        width=channels,
    )
    network.num_features = network.output_dim
    return cast(TimmModel, network.to(memory_format=torch.channels_last))


def own_channels(name: str, description: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation `[3]` of a model's pictures, where they are not CLIP's: its published weights' own."""
    given = description.get("preprocess")
    if given is None:
        tags = open_clip.list_pretrained_tags_by_model(name)
        given = open_clip.get_pretrained_cfg(name, tags[0]) if tags else {}
    mean, std = given.get("mean"), given.get("std")
    if mean is None or std is None or tuple(mean) == open_clip.OPENAI_DATASET_MEAN:
        return None
    return torch.tensor(mean), torch.tensor(std)


def picture_tokens(visual: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures `[B, 3, H, W]` -> the tower's embeddings `[B, D]`, and its tokens `[B, 1 + N, width]`.

    The first token is the class token, or the mean of all where there is none.
    """
    if isinstance(visual, VisionTransformer):
        x = visual.transformer(visual._embeds(images))  # [B, 1 + N, width]
        pooled, _ = visual._pool(x)
        return pooled if visual.proj is None else pooled @ visual.proj, visual.ln_post(x)
    if isinstance(visual, ModifiedResNet):
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))  # [B, width, h, w]
        embeds, tokens, prefix = visual.attnpool(x), x.flatten(2).transpose(1, 2), 0
    else:
        trunk: Any = visual.trunk
        x = trunk.forward_features(images)
        embeds, prefix = visual.head(trunk.forward_head(x)), getattr(trunk, "num_prefix_tokens", 0)
        tokens = x if x.ndim == 3 else x.flatten(2).transpose(1, 2)
    first = tokens[:, :1] if prefix else tokens.mean(dim=1, keepdim=True)
    return embeds, torch.cat([first, tokens[:, prefix:]], dim=1)


def text_tokens(pair: Pair, ids: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Token ids `[B, L]` -> the tower's embeddings `[B, D]`, its tokens `[B, L, width]`, mask `[B, L]` (None: all).

    The first token is the one that sums up: end-of-text, which has the place of the beginning, or the last. L is up to
    the context where the model is `open_clip.CLIP`: there nothing that follows the end of text changes anything.
    """
    if isinstance(pair, open_clip.CustomTextCLIP):
        out = pair.text.forward_intermediates(ids, indices=1, normalize_intermediates=True, output_fmt="NLC")
        tokens = out["text_intermediates"][-1]
        return out["text_features"], tokens.roll(1, dims=1), None
    length, ends = ids.shape[1], ids.argmax(dim=1)  # [B], as the end-of-text has the highest number
    x = pair.token_embedding(ids) + pair.positional_embedding[:length]
    x = pair.ln_final(pair.transformer(x, attn_mask=pair.attn_mask[:length, :length]))  # [B, L, width]
    end = x[torch.arange(len(x), device=x.device), ends]  # [B, width]
    projection = pair.text_projection
    embeds = projection(end) if isinstance(projection, nn.Linear) else end @ projection
    before_end = torch.arange(length, device=ids.device) < ends[:, None]  # [B, L]
    return embeds, torch.cat([end.unsqueeze(1), x[:, 1:]], dim=1), before_end


def text_width(pair: Pair) -> int:
    """Of its text tokens."""
    text: Any = pair.text if isinstance(pair, open_clip.CustomTextCLIP) else pair
    return int(text.token_embedding.weight.shape[1])


def towers(pair: Pair) -> tuple[nn.Module, nn.Module]:
    """Where the blocks of each are."""
    visual = pair.visual
    picture = visual.transformer if isinstance(visual, VisionTransformer) else visual
    return picture, pair.text.transformer if isinstance(pair, open_clip.CustomTextCLIP) else pair.transformer


def token_shape(visual: Any, image_res: int) -> tuple[int, int]:
    """How many tokens a picture has, and their width."""
    with torch.no_grad():
        _, tokens = picture_tokens(visual.eval(), torch.zeros(1, 3, image_res, image_res))
    return tokens.shape[1], tokens.shape[2]


def freeze_towers(pair: Pair, frozen: Sequence[str], groups: int | None, layers: int | None) -> None:
    """Fix whole towers, `vision` or `text`, or all of one but its last `groups` or `layers`, as open_clip counts them.

    The temperature stays trained. Raises InputError where a tower has fewer.
    """
    for name, parameter in pair.named_parameters():
        tower = "vision" if name.startswith("visual.") else "text"
        if tower in frozen and not name.startswith("logit_"):
            parameter.requires_grad_(False)
    if groups is not None and "vision" not in frozen:
        _lock_picture_tower(pair.visual, groups)
    if layers is not None and "text" not in frozen:
        text: Any = pair.text if isinstance(pair, open_clip.CustomTextCLIP) else pair
        count = 1 + len(text.transformer.resblocks) + (text.text_projection is not None)  # the first: its embeddings
        if layers > count:
            raise InputError(f"text_trained_layers {layers}: the text tower has {count} groups")
        pair.lock_text_tower(unlocked_layers=layers)


def _lock_picture_tower(visual: Any, trained: int) -> None:
    """As open_clip's `lock`, and for a ResNet, where that knows none but all: its stem, four stages, attention pool.

    Of a timm model the head, which projects, stays trained beside its last groups.
    """
    if isinstance(visual, VisionTransformer):
        trunk, matcher = visual, VIT_GROUPS
    elif isinstance(visual, ModifiedResNet):
        trunk, matcher = visual, RESNET_GROUPS
    else:
        trunk, matcher = visual.trunk, visual.trunk.group_matcher()
    groups = group_parameters(trunk, matcher)  # from the first on; what no pattern fits is the last
    if trained > len(groups):
        raise InputError(f"vision_trained_stages {trained}: the picture tower has {len(groups)} groups")
    for number in range(len(groups) - trained):
        for name in groups[number]:
            trunk.get_parameter(name).requires_grad_(False)
