"""What kind of CLIP a file's weights are, told from its tensors: for the one line that refuses a wrong pair."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import open_clip
import torch
from torch import Tensor

from utils.clip_config import clip_description, clip_names

State = Mapping[str, Tensor]
Description = Mapping[str, Any]  # of a model, as open_clip's JSON files have it
RESIZED = "visual.positional_embedding"  # of any picture size: it is interpolated
QUICK = "-quickgelu"  # of open_clip's names


@dataclass(frozen=True)
class Told:
    """What a file, or what lies beside it, tells that its tensors do not."""

    quick: bool | None = None  # whether it is of quick GELU; None: not known
    heads: Mapping[str, int] = field(default_factory=dict)  # of its towers, `vision` and `text`


def wrong_pair(
    pair: Any, state: State, told: Told, configured: str, description: Description, fits: bool
) -> str | None:
    """What is wrong with a file for a pair, and what to write in the config; None: nothing.

    state: in open_clip's names; configured and description: the config's `clip_model`; fits: all tensors do.
    """
    if not fits:
        return _other_model(state, told.quick, configured, description)
    if told.quick is not None and told.quick != bool(description.get("quick_gelu")):
        return _other_activation(told.quick, configured)
    for tower, heads in told.heads.items():
        own = _heads(pair, tower)
        if own not in (None, heads):
            return f"its {tower} tower has {heads} heads and clip_model {configured} {own}: give it those heads"
    return None


def wrong_prior(state: State, fits: bool) -> str | None:
    """What is wrong with a file for a CLIP's ResNet as prior; None: nothing."""
    if fits:
        return None
    kind = picture_kind(state)
    wanted = "give the weights of the CLIP that prior_backbone names"
    return f"it is {kind}: {wanted}" if kind else wanted


def _other_model(state: State, quick: bool | None, configured: str, description: Description) -> str:
    if any(name.startswith("res_visual.") for name in state):
        return "it is PriorCLIP's: it goes with 'instruct: before_blocks' and 'prior_backbone: clip:RN50'"
    picture, text = picture_kind(state), text_kind(state)
    if picture is None or text is None:
        lacking = "picture" if picture is None else "text"
        return f"it has no {lacking} tower of a CLIP pair that is known here; give a whole pair's weights"
    said = f"it is {picture}, with {text}"
    if _fits(state, _shapes(description)):
        return f"{said}, as {configured} is: get the file as published, and set is_baseline: True for towers alone"
    name = model_of(state, quick)
    if name is None:
        return f"{said}, which no model of open_clip is: set clip_model to a JSON file of these sizes"
    return f"{said}: set clip_model: {name}"


def _other_activation(quick: bool, configured: str) -> str:
    kind, other = ("quick GELU", "GELU") if quick else ("GELU", "quick GELU")
    line = f"it is of {kind} and clip_model {configured} of {other}, which makes other embeddings of it"
    right = configured + QUICK if quick else configured.removesuffix(QUICK)
    if right in clip_names() and right != configured:
        return f"{line}: set clip_model: {right}"
    return f"{line}: set clip_model to a JSON file with 'quick_gelu': {str(quick).lower()}"


def _heads(pair: Any, tower: str) -> int | None:
    """Of a tower's blocks; None where it has none that are known here."""
    part = pair.visual if tower == "vision" else getattr(pair, "text", pair)
    stacks = (
        getattr(getattr(part, "transformer", None), "resblocks", None),
        getattr(getattr(part, "trunk", None), "blocks", None),
    )
    return next((stack[0].attn.num_heads for stack in stacks if stack is not None), None)


def picture_kind(state: State) -> str | None:
    """A picture tower in words; None where there is none."""
    patches = state.get("visual.conv1.weight")
    if patches is not None and "visual.class_embedding" in state:
        return _vit(patches, _count(state, "visual.transformer.resblocks."))
    if patches is not None and "visual.layer1.0.conv1.weight" in state:
        blocks = "-".join(str(_count(state, f"visual.layer{stage}.")) for stage in range(1, 5))
        return f"a CLIP ResNet of {blocks} blocks, width {len(state['visual.layer1.0.conv1.weight'])}"
    patches = state.get("visual.trunk.patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4:
        return f"{_vit(patches, _count(state, 'visual.trunk.blocks.'))}, of timm's"
    return "a picture network of timm's" if any(name.startswith("visual.trunk.") for name in state) else None


def text_kind(state: State) -> str | None:
    """A text tower in words; None where there is none of open_clip's own."""
    sizes = _text_sizes(state)
    if sizes is None:
        return None
    width, layers, context, words = sizes
    return f"a text tower of width {width}, {layers} layers, context {context}, {words} words"


def model_of(state: State, quick: bool | None) -> str | None:
    """open_clip's name of the model whose tensors these are, but for its picture size; None where it has none.

    quick: whether it is of quick GELU, where that is known. Of several models the one of the file's own picture size
    comes first.
    """
    fitting = []
    for name in clip_names():
        description = clip_description(name)
        if not _may_fit(state, description):
            continue
        try:
            shapes = _shapes(description)
        except Exception:  # whatever this timm does not know of a picture tower
            continue
        if _fits(state, shapes):
            other_gelu = bool(description.get("quick_gelu")) != bool(quick)
            other_picture = RESIZED in shapes and state[RESIZED].shape != shapes[RESIZED]
            fitting.append((other_picture, other_gelu, len(name), name))
    return min(fitting)[-1] if fitting else None


def _vit(patches: Tensor, layers: int) -> str:
    return f"a ViT with patches of {patches.shape[-1]}, width {len(patches)}, {layers} layers"


def _count(state: State, before: str) -> int:
    """How many numbers follow in names that begin so."""
    return len({name.removeprefix(before).partition(".")[0] for name in state if name.startswith(before)})


def _text_sizes(state: State) -> tuple[int, int, int, int] | None:
    """Width, layers, context and words of a text tower."""
    for prefix in ("", "text."):
        words, context = (state.get(prefix + name) for name in ("token_embedding.weight", "positional_embedding"))
        if words is not None and context is not None and words.ndim == context.ndim == 2:
            layers = _count(state, f"{prefix}transformer.resblocks.")
            return words.shape[1], layers, len(context), len(words)
    return None


def _may_fit(state: State, description: Description) -> bool:
    """Whether what open_clip says of a model goes with a file; building it, which alone is sure, takes seconds."""
    vision, text = description["vision_cfg"], description["text_cfg"]
    if "multimodal_cfg" in description or "hf_model_name" in text:  # of kinds that are not known here
        return False
    usual = {"width": 512, "layers": 12, "context_length": 77, "vocab_size": 49408}  # where open_clip does not say
    if _text_sizes(state) != tuple(text.get(key, size) for key, size in usual.items()):
        return False
    patches = state.get("visual.conv1.weight")
    if patches is None or "timm_model_name" in vision:
        return (patches is None) == ("timm_model_name" in vision)
    layers = vision.get("layers", 12)
    if isinstance(layers, list):
        return layers == [_count(state, f"visual.layer{stage}.") for stage in range(1, 5)]
    given = patches.shape[-1], len(patches), _count(state, "visual.transformer.resblocks.")
    return given == (vision.get("patch_size", 16), vision.get("width", 768), layers)


def _shapes(description: Description) -> dict[str, torch.Size]:
    """The tensors of a model that is described, without their numbers."""
    sizes = {key: value for key, value in description.items() if key not in ("custom_text", "preprocess")}
    sizes["vision_cfg"] = sizes["vision_cfg"] | {"timm_model_pretrained": False}
    with torch.device("meta"):
        pair = (open_clip.CustomTextCLIP if description.get("custom_text") else open_clip.CLIP)(**sizes)
    return {name: tensor.shape for name, tensor in pair.state_dict().items()}


def _fits(state: State, shapes: Mapping[str, torch.Size]) -> bool:
    """Whether a file has nearly all tensors of a model, and those it has are of its shapes."""
    needed = [name for name in shapes if not name.endswith("num_batches_tracked")]
    given = [name for name in needed if name in state]
    return len(given) >= 0.9 * len(needed) and all(
        state[name].shape == shapes[name] or name == RESIZED for name in given
    )
