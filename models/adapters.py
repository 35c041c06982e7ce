"""LoRA on chosen towers, by peft (Hu et al. 2022): small matrices are trained beside the frozen ones they add to.

A checkpoint holds the merged weights, as any model's, or the adapter alone: what is trained, and of which weights.
"""

import copy
from collections.abc import Mapping

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import Tensor, nn

from models.retrieval import RetrievalModel
from utils.checkpoint import ADAPTER_BASE, misfits
from utils.config_parts import LoraSettings
from utils.errors import InputError, reason


def add_adapters(model: RetrievalModel, settings: LoraSettings) -> str:
    """Put adapters into the towers that `settings` names, all else of which is frozen; a line saying how many.

    Raises InputError where a name matches nothing or peft knows no adapter for what it matches.
    """
    adapters, places = [], 0
    for name in settings.towers:
        tower = model.tower(name)
        targets = [*settings.targets] if settings.targets else places_of(tower)
        of_peft = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
        )
        try:
            model.fix_tower(name)
            adapters.append(LoraModel(tower, {"default": of_peft}, "default"))
        except Exception as error:  # nothing of that name, or a layer that peft has no adapter for
            raise InputError(f"lora: no adapter fits the {name} tower's {targets[:3]}: {reason(error):.150}") from None
        narrowest = min(p[0].numel() for part, p in tower.named_parameters() if ".lora_A." in part)
        if settings.rank > narrowest:
            raise InputError(f"lora.rank {settings.rank} is over the {narrowest} inputs of a layer in the {name} tower")
        places += len(adapters[-1].targeted_module_names)
    model.adapters = adapters
    trained, total = (sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (False, True))
    return f"lora: adapters of rank {settings.rank} in {places} places; {trained:,} of {total:,} parameters are trained"


def places_of(tower: nn.Module) -> list[str]:
    """The linear layers and attentions in a tower's blocks, which are those with a number in their names."""
    attentions = [name for name, module in tower.named_modules() if isinstance(module, nn.MultiheadAttention)]
    linear = [name for name, module in tower.named_modules() if isinstance(module, nn.Linear)]
    within = tuple(f"{name}." for name in attentions)
    found = [*attentions, *(name for name in linear if not name.startswith(within))]
    return [name for name in found if any(part.isdecimal() for part in name.split("."))] or ["no linear layer"]


def merged(model: RetrievalModel) -> RetrievalModel:
    """A copy whose adapters are added to the weights, with the names and shapes of a model that never had any."""
    plain = copy.deepcopy(model)
    for adapter in plain.adapters:
        adapter.merge_and_unload()
    plain.adapters = []
    return plain


def remove_adapters(model: RetrievalModel) -> None:
    """Leave the model as it was before `add_adapters`, for weights that are merged already."""
    for adapter in model.adapters:
        adapter.unload()
    model.adapters = []


def adapter_state(model: RetrievalModel, base: str) -> dict[str, Tensor]:
    """What is trained, and the buffers, which training may change, by our names.

    base: the sha256 of what the frozen rest started from, which `load_adapter` asks for.
    """
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    kept = {name for name in model.state_dict() if name not in dict(model.named_parameters())}
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return trained | buffers | {ADAPTER_BASE: torch.frombuffer(bytearray.fromhex(base), dtype=torch.uint8)}


def load_adapter(
    model: RetrievalModel, state: Mapping[str, Tensor], settings: LoraSettings | None, base: str, file: str
) -> str:
    """Add an adapter alone to a model that holds its starts' weights, and merge it; a line saying what matched.

    base: the sha256 of those starts. Raises InputError where the settings are missing, the starts are others than it
    was trained on, or tensors do not fit.
    """
    if settings is None:
        raise InputError(f"{file} holds an adapter alone: its config must have the 'lora' that it was trained with")
    given = dict(state)
    if given.pop(ADAPTER_BASE).numpy().tobytes().hex() != base:
        raise InputError(f"{file} is an adapter of other weights: name those it was trained on as starts in the config")
    add_adapters(model, settings)
    own = {name: tensor for name, tensor in adapter_state(model, base).items() if name != ADAPTER_BASE}
    if own.keys() != given.keys() or misfits(given, own):
        raise InputError(f"{file} is an adapter of another model or 'lora'; give the config that it was trained with")
    model.load_state_dict(given, strict=False)
    for adapter in model.adapters:
        adapter.merge_and_unload()
    model.adapters = []
    return f"{file}: an adapter, {len(given)} tensors, merged"
