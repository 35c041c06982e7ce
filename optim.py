"""Parameter groups and AdamW (docs/behaviour.md, 4)."""

from typing import Any

from torch import nn
from torch.optim import AdamW

from utils.config_parts import OptimizerConfig

# As released: by part of a name, so that Swin's relative_position_bias_table does not decay, and the
# temperatures and the LayerNorm inside an attention unit's ffn do.
NO_DECAY = ("bias", "LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight")


def create_optimizer(config: OptimizerConfig, model: nn.Module, *, fused: bool = True) -> AdamW:
    """AdamW over the trained parameters in four groups: decayed or not, lr or lr times `lr_mult`.

    `lr_mult` reaches the parameters that `model.init_params` names (an absent list: none, as released).
    fused: all of a parameter's arithmetic in one pass, which parameters divided among processes have not.
    """
    multiplied = set(getattr(model, "init_params", ()))
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": decay, "lr": config.lr * factor}
        for factor in (1.0, config.lr_mult)
        for decay in (config.weight_decay, 0.0)
    ]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_name = any(part in name for part in NO_DECAY)
            undecayed = by_name if config.decay == "released" else parameter.ndim < 2
            groups[2 * (name in multiplied) + undecayed]["params"].append(parameter)
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=fused)
