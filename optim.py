"""Parameter groups and AdamW (docs/behaviour.md, 4)."""

from itertools import product
from typing import Any, cast

from torch import nn
from torch.optim import AdamW

from utils.config_parts import OptimizerConfig

# As released: by part of a name, so that Swin's relative_position_bias_table does not decay, and the
# temperatures and the LayerNorm inside an attention unit's ffn do.
NO_DECAY = ("bias", "LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight")


def create_optimizer(config: OptimizerConfig, model: nn.Module, *, fused: bool = True) -> AdamW:
    """AdamW over the trained parameters in four groups: decayed or not, lr or lr times `lr_mult`.

    `lr_mult` reaches the parameters that `model.init_params` names (an absent list: none, as released). With
    `layer_decay` the rate falls with a parameter's depth, by `model.layer_depths()`, each depth in groups of its own.
    fused: all of a parameter's arithmetic in one pass, which parameters divided among processes have not.
    """
    multiplied = set(getattr(model, "init_params", ()))
    depths = cast(Any, model).layer_depths() if config.layer_decay < 1 else {}
    groups: dict[tuple[bool, bool, int], dict[str, Any]] = {}

    def group(heads: bool, undecayed: bool, depth: int) -> dict[str, Any]:
        rate = config.lr * (config.lr_mult if heads else 1.0) * config.layer_decay**depth
        new = {"params": [], "weight_decay": 0.0 if undecayed else config.weight_decay, "lr": rate}
        return groups.setdefault((heads, undecayed, depth), new)

    for heads, undecayed in product((False, True), repeat=2):
        group(heads, undecayed, 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_name = any(part in name for part in NO_DECAY)
            undecayed = by_name if config.decay == "released" else parameter.ndim < 2
            group(name in multiplied, undecayed, depths.get(name, 0))["params"].append(parameter)
    return AdamW(list(groups.values()), lr=config.lr, betas=config.betas, eps=1e-8, fused=fused)
