"""Training that starts from a whole model's weights, as far as they fit (`--checkpoint`, `--load_ckpt_from`).

As the published code does: tables of another window or picture size are interpolated, X-VLM's `text_encoder.bert.` is
understood, and tensors may be missing or left over. Unlike there, a report says so, and an encoder of which less than
half is filled is an error.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.published_names import to_ours
from models.released import DERIVED, released_name
from models.retrieval import RetrievalModel
from utils.checkpoint import misfits
from utils.errors import InputError

# In the released layout -> in ours.
ENCODERS = {
    "vision_encoder.": "vision_encoder.backbone.",
    "conv_encoder.": "instruction_encoder.backbone.",
    "text_encoder.": "text_encoder.backbone.",
}
# Of a CLIP pair, in the names of a checkpoint, which are open_clip's, -> ours; both together are the second.
CLIP_TOWERS = {"visual.": "clip.visual.", "": "clip."}


def start_from_model(model: RetrievalModel, state: Mapping[str, Tensor], file: str) -> str:
    """Fill a model from a state dict in the released or X-VLM's layout, as far as it fits; a report of what did not.

    Raises InputError, the model unchanged, where less than half of an encoder's tensors, or none at all, would be
    filled.
    """
    own = model.state_dict()
    given = _in_our_names(model, state)
    unfit = misfits(given, own)
    refused = {name for tensors in unfit.values() for name, _ in tensors}
    filled = [name for name in own if name in given and name not in refused]
    for released, prefix in (ENCODERS | CLIP_TOWERS).items():
        needed = [name for name in own if name.startswith(prefix) and not name.endswith("num_batches_tracked")]
        matched = sum(name in filled for name in needed) if needed else 0
        if 2 * matched < len(needed):
            raise InputError(
                f"{file} fills {matched} of {len(needed)} tensors of {released or prefix}*: less than half; give "
                "weights of the architecture and sizes that the config names"
            )
    with torch.no_grad():
        for name in filled:
            own[name].copy_(given[name])
    notes = [f"{len(tensors)} {kind}, first {''.join(tensors[0])}" for kind, tensors in unfit.items()]
    for kind, names in (
        ("not in the file", [name for name in own if name not in given]),
        ("left over", [name for name in given if name not in own]),
    ):
        if names:
            notes.append(f"{len(names)} {kind}, first {names[0]}")
    return f"{file}: {len(filled)} of {len(own)} tensors" + (f" ({'; '.join(notes)})" if notes else "")


def _in_our_names(model: RetrievalModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors by the names of the model's own, its encoders' tables in the model's sizes."""
    state = {name: tensor for name, tensor in state.items() if name.rsplit(".", 1)[-1] not in DERIVED}
    if hasattr(model, "clip"):
        from models.clip_starts import to_open_clip  # brings open_clip

        state = to_open_clip(model.clip, state)
    own_name = {released_name(name): name for name in model.state_dict()}
    given = {own_name.get(n, n): t for n, t in state.items() if not n.startswith(tuple(ENCODERS))}
    for released, prefix in ENCODERS.items():
        part = {name.removeprefix(released): t for name, t in state.items() if name.startswith(released)}
        try:
            backbone = model.get_submodule(prefix.rstrip("."))
        except AttributeError:  # a model without VIR has no prior
            given |= {released + name: tensor for name, tensor in part.items()}
            continue
        given |= {prefix + name: tensor for name, tensor in to_ours(backbone, part).items()}
    return given
