"""Publishers' names and shapes of encoder weights -> timm's and transformers' (docs/behaviour.md, 7)."""

import math
import re

from timm.layers import resample_abs_pos_embed
from timm.models.efficientnet import EfficientNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

State = dict[str, Tensor]


def to_ours(module: nn.Module, state: State) -> State:
    """A publisher's state dict in the names and shapes of the timm or transformers model that it is for."""
    if isinstance(module, PreTrainedModel):
        return _to_transformers(module, state)
    return _to_timm(module, state)


def _to_timm(module: nn.Module, state: State) -> State:
    if isinstance(module, SwinTransformer):
        return _resized_windows(module, _swin_names(state))
    if isinstance(module, VisionTransformer):
        return _resized_positions(module, state)
    if isinstance(module, EfficientNet) and "_conv_stem.weight" in state:
        return _efficientnet_names(state, [len(list(stage.children())) for stage in module.blocks])
    return _sequence_names(module, state)


def _swin_names(state: State) -> State:
    """Microsoft's Swin ends a stage with its downsample, timm's starts the next stage with it."""
    if not any(name.startswith("layers.0.downsample.") for name in state):
        return state  # timm's own naming

    def renamed(name: str) -> str:
        return re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name)

    return {renamed(name): value for name, value in state.items()}


def _resized_windows(module: SwinTransformer, state: State) -> State:
    """Relative position tables `[(2w-1)^2, heads]` of another window, interpolated per head.

    Bicubic as in Swin's own fine-tuning; timm's filter interpolates on another grid, linearly.
    """
    windows = {
        f"{name}.relative_position_bias_table": attention.window_size
        for name, attention in module.named_modules()
        if hasattr(attention, "relative_position_bias_table")
    }

    def resized(name: str, table: Tensor) -> Tensor:
        if name not in windows or not (side := _square_side(table, axis=0, ndim=2)):
            return table
        size = [2 * w - 1 for w in windows[name]]
        if size == [side, side]:
            return table
        grid = table.float().T.reshape(1, -1, side, side)  # [1, heads, 2w-1, 2w-1]
        return F.interpolate(grid, size=size, mode="bicubic").flatten(2)[0].T

    return {name: resized(name, value) for name, value in state.items()}


def _resized_positions(module: VisionTransformer, state: State) -> State:
    """The position table `[1, prefix + n, width]` of another image size, interpolated as DeiT's own code does."""
    table, prefix = state.get("pos_embed"), module.num_prefix_tokens
    if table is None or not (side := _square_side(table, axis=1, ndim=3, prefix=prefix)):
        return state
    grid = list(module.patch_embed.grid_size)
    resized = resample_abs_pos_embed(table, grid, old_size=[side, side], num_prefix_tokens=prefix, antialias=False)
    return state | {"pos_embed": resized}


def _square_side(table: Tensor, *, axis: int, ndim: int, prefix: int = 0) -> int:
    """The side of the square grid along `axis` after `prefix` entries; 0 when there is none."""
    if table.ndim != ndim or table.shape[axis] <= prefix:
        return 0
    count = table.shape[axis] - prefix
    side = math.isqrt(count)
    return side if side * side == count else 0


def _sequence_names(module: nn.Module, state: State) -> State:
    """A ResNet saved as the sequence conv1, bn1, act, pool, layer1 to layer4; torchvision's naming is timm's.

    A checkpoint in the released layout numbers those parts of any prior that has them.
    """
    parts = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    parts = {number: part for number, part in parts.items() if hasattr(module, part) and not hasattr(module, number)}
    split = [(name.partition("."), value) for name, value in state.items()]
    return {f"{parts.get(first, first)}{dot}{rest}": value for (first, dot, rest), value in split}


def _efficientnet_names(state: State, stage_lengths: list[int]) -> State:
    """EfficientNet-PyTorch's flat `_blocks.7._depthwise_conv` -> timm's `blocks.3.0.conv_dw`.

    Same layers: TensorFlow's padding and batch norm eps are those of timm's `tf_` models, not of its others.
    """
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    expanding |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    blocks = [f"blocks.{stage}.{i}" for stage, length in enumerate(stage_lengths) for i in range(length)]

    def renamed(name: str) -> str:
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match is None:
            first, _, rest = name.partition(".")
            return f"{outer.get(first, first)}.{rest}"
        index, layer, tensor = int(match[1]), match[2], match[3]
        names = expanding if f"_blocks.{index}._expand_conv.weight" in state else plain
        if index >= len(blocks) or layer not in names:
            return name
        return f"{blocks[index]}.{names[layer]}.{tensor}"

    return {renamed(name): value for name, value in state.items()}


def _to_transformers(module: PreTrainedModel, state: State) -> State:
    """Names with or without the model's prefix (`bert.`), LayerNorm's gamma and beta of old files."""
    prefix = f"{module.base_model_prefix}."
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

    def renamed(name: str) -> str:
        name = name.removeprefix(prefix)
        for before, after in old.items():
            if name.endswith(before):
                return name.removesuffix(before) + after
        return name

    return {renamed(name): value for name, value in state.items()}
