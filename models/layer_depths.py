"""How far below the top of its encoder each parameter is, for learning rates that fall towards the input.

The last block has depth 1, the first of n has n, what comes before the blocks n + 1. What comes after them, heads and
temperatures have none.
"""

import re
from typing import Any

from timm.models import group_parameters
from torch import nn

from utils.errors import InputError

# Where encoders are in our models; the first that a parameter's name begins with is its own.
ENCODERS = (
    *("vision_encoder.backbone", "instruction_encoder.backbone", "text_encoder.backbone"),
    *("res_visual", "clip.visual.trunk", "clip.visual", "clip.text", "clip"),
)
# Of transformers' encoders and open_clip's towers, which have no `group_matcher`: names of blocks, with their numbers,
# and of what stands before them.
BLOCK = re.compile(r"(?:^|\.)(?:resblocks\.|layers?\.|layer)(\d+)\.")
BEFORE = re.compile(
    r"(?:transformer\.)?(?:embeddings|token_embedding|positional_embedding|class_embedding|conv[123]|bn[123]|ln_pre)\b"
)


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Parameter's name -> its depth, 1 or more; InputError where no encoder's blocks can be told."""
    modules, left = dict(model.named_modules()), [name for name, _ in model.named_parameters()]
    found: dict[str, int] = {}
    for encoder in ENCODERS:
        inside = [name for name in left if name.startswith(f"{encoder}.")]
        left = [name for name in left if name not in inside]
        if inside:
            depths = depths_in(modules[encoder], [name.removeprefix(f"{encoder}.") for name in inside])
            found |= {f"{encoder}.{name}": depth for name, depth in depths.items()}
    if not found:
        raise InputError("optimizer.layer_decay: the blocks of these encoders are not known; leave it at 1")
    return found


def depths_in(encoder: nn.Module, names: list[str]) -> dict[str, int]:
    """The same within an encoder, for its parameters of these names."""
    matcher: Any = getattr(encoder, "group_matcher", None)
    if matcher:
        specs = [[(spec, None)] if isinstance(spec, str) else spec for spec in matcher(coarse=False).values() if spec]
        patterns = [pattern for of_group in specs for pattern, _ in of_group]
        groups = group_parameters(encoder, matcher(coarse=False), reverse=True)
        known = [name for name in names if any(re.match(pattern, name) for pattern in patterns)]  # others come after
        return {name: 1 + max(groups[n] for n in known) - groups[name] for name in known}
    numbers = {name: int(block[1]) for name in names if (block := BLOCK.search(name))}
    order = sorted(set(numbers.values()))
    before = {name: len(order) + 1 for name in names if order and name not in numbers and BEFORE.match(name)}
    return {name: len(order) - order.index(number) for name, number in numbers.items()} | before
