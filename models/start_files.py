"""Start files: pre-trained weights in their publishers' formats -> our encoders (docs/behaviour.md, 7).

A start is a path, `package:NAME/inside/path`, `timm:NAME` or `hf:ORG/NAME`. Whatever it is, a start either fills
its encoder whole and says so, or is an error that leaves the encoder as it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import snapshot_download
from torch import nn
from transformers import PreTrainedModel

from utils.checkpoint import misfits, read_checkpoint
from utils.config import Config
from utils.errors import InputError
from utils.start_names import HUB, PACKAGE, WEIGHT_FILES, few, local_start, weight_file

TEXT_FILES = ("config.json", "vocab.txt", "tokenizer*.json", "special_tokens_map.json")

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
        return line + (f" ({len(self.dropped)} dropped: {few(self.dropped)})" if self.dropped else "")


def start_encoders(model: Any, config: Config, *, download: bool = False) -> Iterator[StartReport]:
    """Fill a model's encoders, one after another, from the starts that its config names."""
    if config.clip_start:
        yield load_clip_start(model.clip, config.clip_start, download=download)
    if config.vision_start:
        yield load_vision_start(model.vision_encoder.backbone, config.vision_start, download=download)
    if config.resnet_ckpt and (config.has_vir or config.instruct == "before_blocks"):
        prior = model.instruction_encoder.backbone if config.has_vir else model.res_visual
        yield load_prior_start(prior, config.resnet_ckpt, download=download)
    if config.text_encoder:
        yield load_text_start(model.text_encoder.backbone, config.text_encoder, download=download)


def load_clip_start(pair: nn.Module, spec: str, *, download: bool = False) -> StartReport:
    """Fill a CLIP tower pair from weights in open_clip's names; as `load_vision_start`."""
    return _load("clip", pair, spec, (), download)


def load_vision_start(module: nn.Module, spec: str, *, download: bool = False) -> StartReport:
    """Fill a timm model without classifier from a start in its publisher's naming or in timm's.

    Swin files may be of another window, ViT files of another image size: their position tables are
    interpolated. Raises InputError, the module unchanged, when the start does not fill it.
    """
    return _load("vision encoder", module, spec, VISION_HEADS, download)


def load_prior_start(module: nn.Module, spec: str, *, download: bool = False) -> StartReport:
    """Fill the prior, a timm model without classifier, from a scene recogniser; as `load_vision_start`."""
    return _load("instruction encoder", module, spec, VISION_HEADS, download)


def load_text_start(module: PreTrainedModel, spec: str, *, download: bool = False) -> StartReport:
    """Fill a BERT-like encoder without pooler from a folder or file that transformers wrote, new or old.

    Raises InputError, the module unchanged, when the start does not fill it.
    """
    return _load("text encoder", module, spec, TEXT_HEADS, download)


# ---- where a start lies ----


def resolve_start(spec: str, *, download: bool = False) -> Path:
    """The file or folder that a start names.

    A hub start (`timm:`, `hf:`) is a folder of the local hub cache, filled only with `download`. Raises
    InputError when nothing is there.
    """
    if spec.startswith("timm:"):
        try:
            config = timm.get_pretrained_cfg(spec.removeprefix("timm:"))
        except RuntimeError:  # of a model that it knows, a tag that it does not
            config = None
        if config is None or not config.hf_hub_id:
            raise InputError(f"start '{spec}': timm knows no published weights of that name")
        return _from_hub(spec, config.hf_hub_id, download)
    if spec.startswith("hf:"):
        return _from_hub(spec, spec.removeprefix("hf:"), download)
    return local_start(spec)


def weights_of_start(spec: str) -> Path | None:
    """The weight file that a start names; None where it is not on this machine."""
    try:
        return weight_file(resolve_start(spec))
    except InputError:
        return None


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


# ---- filling an encoder ----


def _load(
    encoder: str,
    module: nn.Module,
    spec: str,
    heads: tuple[str, ...],
    download: bool,
) -> StartReport:
    from models.published_names import to_ours  # here, as a run without starts has no use for it

    file = weight_file(resolve_start(spec, download=download))
    shown = spec if spec.startswith((PACKAGE, *HUB)) else str(file)
    state = to_ours(module, read_checkpoint(file))
    own = module.state_dict()
    dropped = tuple(name for name in state if name not in own and name.startswith(heads))
    given = {n: v for n, v in state.items() if n not in dropped and n.rsplit(".", 1)[-1] not in DERIVED}
    # Files older than batch norm's step counters hold none of them; batch norm with a momentum never reads its own.
    counted = any(name.endswith("num_batches_tracked") for name in given)
    needed = [name for name in own if counted or not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in given]
    unexpected = [name for name in given if name not in own]
    unfit = misfits(given, own)
    problems = [
        f"{len(names)} {kind}, first {names[0]}"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    problems += [f"{len(tensors)} {kind}, first {''.join(tensors[0])}" for kind, tensors in unfit.items()]
    matched = len(needed) - len(missing) - sum(map(len, unfit.values()))
    if problems:
        raise InputError(
            f"{encoder}: {shown} does not fit, {matched} of {len(needed)} tensors match "
            f"({'; '.join(problems)}); give weights of the architecture and sizes that the config names"
        )
    module.load_state_dict(own | given)
    return StartReport(encoder, shown, matched, len(needed), dropped)
