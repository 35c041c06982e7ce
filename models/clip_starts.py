"""Published CLIP weights -> open_clip's names and shapes, in one function a publisher (docs/pretrained_weights.md)."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from open_clip.model import resize_pos_embed
from torch import Tensor

State = dict[str, Tensor]
Sizes = Mapping[str, Any]  # a transformers folder's config.json

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI's archives hold as tensors
CLIP, SIGLIP = "vision_model.embeddings.class_embedding", "vision_model.head.probe"  # transformers', each its own
PROJECTION = ("attnpool.c_proj.weight", "attnpool.c_proj.bias")  # of a CLIP's ResNet, to the width of its embeddings
TEXT_PARTS = ("text_projection", "positional_embedding", "token_embedding.", "transformer.", "ln_final.")
_BLOCK = r"^(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)$"


def to_open_clip(pair: Any, state: State) -> State:
    """A published state dict in the names and shapes of an open_clip pair; what is no publisher's stays as it is."""
    if SIGLIP in state:
        state = transformers_siglip(state)
    elif CLIP in state:
        state = transformers_clip(state)
    state = _text_tower_placed(pair, state)
    for name in ("logit_scale", "logit_bias"):  # a number, or a list of one
        own = getattr(pair, name, None)
        if own is not None and name in state and state[name].numel() == 1:
            state = state | {name: state[name].reshape(own.shape)}
    return _resized_positions(pair, state)


def transformers_clip(state: State) -> State:
    """transformers' `CLIPModel`: attention in three parts, projections the other way round."""
    state = _joined_attention(state)
    outer = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.": "visual.conv1.",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.": "visual.ln_pre.",
        "vision_model.post_layernorm.": "visual.ln_post.",
        "visual_projection.weight": "visual.proj",
        "text_model.embeddings.token_embedding.": "token_embedding.",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.": "ln_final.",
        "text_projection.weight": "text_projection",
    }
    blocks = {"vision": "visual.transformer.resblocks", "text": "transformer.resblocks"}
    renamed = {_renamed(name, outer, dict.fromkeys(blocks, _OPEN_CLIP), blocks): t for name, t in state.items()}
    for projection in ("visual.proj", "text_projection"):
        if projection in renamed:
            renamed[projection] = renamed[projection].T
    return renamed


def transformers_siglip(state: State) -> State:
    """transformers' `SiglipModel`: a picture tower of timm's that pools by attention, a text tower of open_clip's."""
    state = _joined_attention(state, vision="qkv.{}")
    outer = {
        "vision_model.embeddings.patch_embedding.": "visual.trunk.patch_embed.proj.",
        "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
        "vision_model.post_layernorm.": "visual.trunk.norm.",
        "vision_model.head.probe": "visual.trunk.attn_pool.latent",
        "vision_model.head.attention.out_proj.": "visual.trunk.attn_pool.proj.",
        "vision_model.head.layernorm.": "visual.trunk.attn_pool.norm.",
        "vision_model.head.mlp.": "visual.trunk.attn_pool.mlp.",
        "text_model.embeddings.token_embedding.": "text.token_embedding.",
        "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
        "text_model.final_layer_norm.": "text.ln_final.",
        "text_model.head.": "text.text_projection.",
    }
    blocks = {"vision": "visual.trunk.blocks", "text": "text.transformer.resblocks"}
    within = {"vision": _TIMM, "text": _OPEN_CLIP}
    renamed = {_renamed(name, outer, within, blocks): tensor for name, tensor in state.items()}
    if "visual.trunk.pos_embed" in renamed:
        renamed["visual.trunk.pos_embed"] = renamed["visual.trunk.pos_embed"].unsqueeze(0)  # [1, N, width]
    for kind in ("weight", "bias"):  # query, then key and value: [width, ...] and [2 * width, ...]
        joined = renamed.pop(f"vision_model.head.attention.in_proj_{kind}", None)
        if joined is not None:
            width = len(joined) // 3
            renamed[f"visual.trunk.attn_pool.q.{kind}"] = joined[:width]
            renamed[f"visual.trunk.attn_pool.kv.{kind}"] = joined[width:]
    return renamed


def picture_part(state: State) -> tuple[State, tuple[str, ...]]:
    """Of a whole CLIP's tensors, those of its ResNet by their names in it, and the names of all others.

    PriorCLIP's is its prior. A ResNet's own tensors, without a CLIP around them, stay as they are.
    """
    for prefix in ("res_visual.", "visual."):
        part = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if part:
            return part, tuple(name for name in state if not name.startswith(prefix))
    return state, ()


def is_of_transformers(state: State) -> bool:
    """Whether a file has the names of transformers' `CLIPModel` or `SiglipModel`."""
    return CLIP in state or SIGLIP in state


def quick_gelu_of(state: State, sizes: Sizes) -> bool | None:
    """Whether a publisher's file, in its own names, is of quick GELU; None where nothing in or beside it says so.

    sizes: of the config.json beside transformers' weights; empty: there is none.
    """
    if all(name in state for name in OPENAI_EXTRAS):
        return True
    usual = {"hidden_act": "gelu_pytorch_tanh" if SIGLIP in state else "quick_gelu"}  # where it need not say
    said = {(usual | dict(tower))["hidden_act"] == "quick_gelu" for tower in _towers_in(sizes).values()}
    return said.pop() if len(said) == 1 else None


def heads_of(state: State, sizes: Sizes) -> dict[str, int]:
    """How many heads the towers, `vision` and `text`, of transformers' weights have; sizes: as above."""
    usual = {"vision": 12, "text": 12 if SIGLIP in state else 8}
    return {tower: said.get("num_attention_heads", usual[tower]) for tower, said in _towers_in(sizes).items()}


def _towers_in(sizes: Sizes) -> dict[str, Sizes]:
    """What a config.json says of each tower."""
    given = {tower: sizes.get(f"{tower}_config") or {} for tower in ("vision", "text")} if sizes else {}
    return {tower: said for tower, said in given.items() if isinstance(said, Mapping)}


# ---- names and shapes ----

_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj"}
_OPEN_CLIP |= {"self_attn.": "attn.", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_TIMM = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj", "self_attn.": "attn."}


def _renamed(
    name: str, outer: Mapping[str, str], within: Mapping[str, Mapping[str, str]], blocks: Mapping[str, str]
) -> str:
    """transformers' name of a tensor -> ours: outer: of what is in no block; within: of a block's parts, by tower."""
    if match := re.match(_BLOCK, name):
        tower, number, rest = match.groups()
        part = next((part for part in within[tower] if rest.startswith(part)), "")
        return f"{blocks[tower]}.{number}.{within[tower].get(part, '')}{rest.removeprefix(part)}"
    whole = next((before for before in outer if name.startswith(before)), None)
    return name if whole is None else outer[whole] + name.removeprefix(whole)


def _joined_attention(state: State, *, vision: str = "in_proj_{}") -> State:
    """Query, key and value projections, each of its own, as one, `[3 * width, ...]`; vision: its name in that tower."""
    out: State = {}
    for name, tensor in state.items():
        match = re.match(r"^(.+\.self_attn\.)([qkv])_proj\.(weight|bias)$", name)
        parts = [f"{match[1]}{part}_proj.{match[3]}" for part in "qkv"] if match else []
        if match is None or not all(part in state for part in parts):
            out[name] = tensor
        elif match[2] == "q":
            named = vision if name.startswith("vision_model.") else "in_proj_{}"
            out[match[1] + named.format(match[3])] = torch.cat([state[part] for part in parts])
    return out


def _text_tower_placed(pair: Any, state: State) -> State:
    """The text tower's tensors where the pair has them: under `text.` in models with a text tower of its own."""
    custom = not hasattr(pair, "positional_embedding")
    if custom and "positional_embedding" in state:  # as open_clip does
        return {f"text.{name}" if name.startswith(TEXT_PARTS) else name: tensor for name, tensor in state.items()}
    if not custom and "text.positional_embedding" in state:
        return {name.removeprefix("text."): tensor for name, tensor in state.items()}
    return state


def _resized_positions(pair: Any, state: State) -> State:
    """The ViT's position table `[1 + N, width]` of another picture size, interpolated as open_clip does."""
    table = state.get("visual.positional_embedding")
    if table is None or table.ndim != 2 or not table.is_floating_point() or not hasattr(pair.visual, "grid_size"):
        return state
    cells = len(table) - 1
    if cells < 1 or math.isqrt(cells) ** 2 != cells:
        return state
    resized = state | {"visual.positional_embedding": table.float()}
    resize_pos_embed(resized, pair)
    return resized
