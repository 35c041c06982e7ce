"""Released names and shapes <-> ours: the layout of checkpoint files (docs/behaviour.md, 7)."""

import re
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from models.retrieval import RetrievalModel
from utils.checkpoint import misfits
from utils.config import Config
from utils.errors import InputError

DERIVED = ("relative_position_index", "attn_mask")  # of Swin; in a released file, but computed
TEMPERATURES = ("temp", "temp2")  # a model has those of its losses only

# Ours -> released, first match. The prior is numbered as the sequence conv1, bn1, act, pool, layer1, ...
_RENAMED = [
    (r"^clip\.", ""),  # a CLIP pair's tensors are named as open_clip names them
    (r"^vision_encoder\.backbone\.", "vision_encoder."),
    (r"^instruction_encoder\.backbone\.", "conv_encoder."),
    (r"^text_encoder\.backbone\.", "text_encoder."),
    (r"^(vision_instruction|language_cycle)\.mapping\.", r"mapping_\1."),
    (r"^(vision_instruction|language_cycle)\.head\.", r"head_\1."),
    (r"^(vision_instruction|language_cycle)\.self_attention\.(\d+)\.(attention\.)?", r"\1_sa.\2.\3"),
    (r"^(vision_instruction|language_cycle)\.cross_attention\.(\d+)\.(attention\.)?", r"\1_ca.\2.\3"),
    (r"_sa\.(\d+)\.attention\.", r"_sa.\1.mhatt."),
    (r"_ca\.(\d+)\.attention\.", r"_ca.\1.mhatt_cross."),
    (r"vision_instruction", "img"),
    (r"language_cycle", "txt"),
]
_RESNET_SEQUENCE = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def released_name(name: str) -> str:
    """The name in a released checkpoint of one of our parameters or buffers."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    if match := re.match(r"conv_encoder\.(conv1|bn1|layer[1-4])\.", name):
        return f"conv_encoder.{_RESNET_SEQUENCE[match[1]]}.{name[match.end() :]}"
    if match := re.match(r"vision_encoder\.layers\.(\d+)\.downsample\.", name):
        # timm has a downsample at the start of a stage, the released Swin at the end of the one before.
        return f"vision_encoder.layers.{int(match[1]) - 1}.downsample.{name[match.end() :]}"
    return name


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Our names -> tensors that a released file holds: the state dict and Swin's derived buffers."""
    derived = {
        n: b for n, b in model.named_buffers() if n.startswith("vision_encoder.") and n.rsplit(".", 1)[-1] in DERIVED
    }
    return model.state_dict() | derived


def released_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors under their released names (905 for the published sizes with Swin)."""
    if getattr(model, "adapters", None):
        from models.adapters import merged  # for those who train some

        model = merged(cast(RetrievalModel, model))
    return {released_name(name): tensor for name, tensor in _tensors(model).items()}


def checkpoint_state(model: nn.Module, config: Config) -> dict[str, Tensor]:
    """What a run's checkpoint holds: all tensors under their released names, or with LoRA the adapter alone."""
    if config.lora and config.lora.checkpoint == "adapter":
        from models.adapters import adapter_state
        from models.filling import starts_checksum

        return adapter_state(cast(RetrievalModel, model), starts_checksum(config))
    return released_state_dict(model)


def load_released(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Fill the model from a state dict in the released layout; a line saying what matched.

    Every parameter and buffer must be there with its shape. Derived buffers are left aside, and so are the
    temperatures of losses that only the file's model or only this one uses. Raises InputError naming the first
    missing and unexpected tensors and those of another shape or kind, before anything is changed.
    """
    if getattr(model, "adapters", None):
        from models.adapters import remove_adapters

        remove_adapters(cast(RetrievalModel, model))
    own = model.state_dict()
    ours = {released_name(name): tensor for name, tensor in own.items()}
    given = {n: t for n, t in state.items() if n.rsplit(".", 1)[-1] not in DERIVED}
    missing = [n for n in ours if n not in given and n not in TEMPERATURES]
    unexpected = [n for n in given if n not in ours and n not in TEMPERATURES]
    problems = [
        f"{len(names)} {kind}, first '{names[0]}'"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    for kind, tensors in misfits(given, ours).items():
        name, detail = tensors[0]
        problems.append(f"{len(tensors)} {kind}, first '{name}'{detail}")
    if problems:
        raise InputError(f"the weights do not fit the config's model: {'; '.join(problems)}")
    model.load_state_dict({n: given[released_name(n)] for n in own if released_name(n) in given}, strict=False)
    kept = [name for name in ours if name not in given]
    line = f"{len(ours) - len(kept)} of {len(ours)} tensors"
    return line + (f" ({' and '.join(kept)} as in the config)" if kept else "")
