"""Start files: pre-trained weights in their publishers' formats -> our encoders (docs/behaviour.md, 7).

A start is a path, `package:NAME/inside/path`, `timm:NAME`, `hf:ORG/NAME` or `open_clip:NAME/TAG`. Whatever it is, a
start either fills its encoder whole and says so, or is an error that leaves the encoder as it was.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import snapshot_download, try_to_load_from_cache
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.released import released_name
from utils.checkpoint import misfits, read_checkpoint
from utils.config import Config
from utils.errors import InputError
from utils.files import read_json
from utils.start_names import HUB, OPEN_CLIP, PACKAGE, WEIGHT_FILES, few, local_start, weight_file

OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # of a repository, the first there
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


def start_encoders(
    model: Any, config: Config, whole: str | None = None, *, download: bool = False
) -> Iterator[StartReport]:
    """Fill a model's encoders, one after another, from the starts that its config names.

    whole: weights of a whole model with CLIP towers, a published pair's or a checkpoint of ours, in place of them.
    """
    if whole:
        yield load_clip_start(model, config, whole, whole=True)
        return
    if config.clip_start:
        yield load_clip_start(model, config, config.clip_start, download=download)
    if config.vision_start:
        yield load_vision_start(model.vision_encoder.backbone, config.vision_start, download=download)
    if config.resnet_ckpt and (config.has_vir or config.instruct == "before_blocks"):
        prior = model.instruction_encoder.backbone if config.has_vir else model.res_visual
        yield load_prior_start(prior, config.resnet_ckpt, download=download)
    if config.text_encoder:
        yield load_text_start(model.text_encoder.backbone, config.text_encoder, download=download)


def load_clip_start(
    model: Any, config: Config, spec: str, *, whole: bool = False, download: bool = False
) -> StartReport:
    """Fill a model's CLIP pair from its publisher's weights (docs/pretrained_weights.md), as `load_vision_start`.

    PriorCLIP's own files fill a PriorCLIP with its prior. whole: the file must fill the model with all that is in it.
    """
    from models.clip_kinds import Told, wrong_pair  # here, as they bring open_clip
    from models.clip_starts import OPENAI_EXTRAS, heads_of, is_of_transformers, quick_gelu_of, to_open_clip

    assert config.clip_model is not None
    file, shown = _found(spec, download)
    published = read_checkpoint(file)
    sizes = _config_beside(file) if is_of_transformers(published) else {}
    tagged = _open_clip_weights(spec).get("quick_gelu", False) if spec.startswith(OPEN_CLIP) else None
    told = Told(quick_gelu_of(published, sizes) if tagged is None else tagged, heads_of(published, sizes))
    state = to_open_clip(model.clip, published)
    pair = state
    if hasattr(model, "res_visual"):  # PriorCLIP's prior, whose kind the config says in other keys
        pair = {name: tensor for name, tensor in state.items() if not name.startswith("res_visual.")}
        whole = whole or len(pair) < len(state)
    wrong = partial(wrong_pair, model.clip, pair, told, config.clip_model, config.clip_config)
    if not whole:
        return _fill("clip", model.clip, state, OPENAI_EXTRAS, shown, wrong)
    own_name = {released_name(name): name for name in model.state_dict()}
    state = {own_name.get(name, name): tensor for name, tensor in state.items()}
    return _fill("clip", model, state, OPENAI_EXTRAS, shown, wrong)


def load_vision_start(module: nn.Module, spec: str, *, download: bool = False) -> StartReport:
    """Fill a timm model without classifier from a start in its publisher's naming or in timm's.

    Swin files may be of another window, ViT files of another image size: their position tables are
    interpolated. Raises InputError, the module unchanged, when the start does not fill it.
    """
    return _load("vision encoder", module, spec, VISION_HEADS, download)


def load_prior_start(module: nn.Module, spec: str, *, download: bool = False) -> StartReport:
    """Fill the prior, a timm model without classifier, from a scene recogniser; as `load_vision_start`.

    A CLIP's ResNet is filled from a whole CLIP, whose other tensors are dropped. A last projection to another width is
    dropped too: the prior keeps its own, and the report counts it as not matched.
    """
    if not hasattr(module, "attnpool"):
        return _load("instruction encoder", module, spec, VISION_HEADS, download)
    from models.clip_kinds import wrong_prior
    from models.clip_starts import PROJECTION, picture_part

    file, shown = _found(spec, download)
    published, own = read_checkpoint(file), module.state_dict()
    state, others = picture_part(published)
    another = {n: f"{n} {list(state[n].shape)} for {list(own[n].shape)}" for n in PROJECTION if n in state}
    another = {n: said for n, said in another.items() if state[n].shape[1:] == own[n].shape[1:]}
    another = {n: said for n, said in another.items() if len(state[n]) != len(own[n])}
    kept = {n: own[n] for n in another}
    report = _fill("instruction encoder", module, state | kept, (), shown, partial(wrong_prior, published))
    return replace(report, matched=report.matched - len(kept), dropped=(*another.values(), *others))


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
    if spec.startswith(OPEN_CLIP):
        return _from_open_clip(spec, download)
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


def _open_clip_weights(spec: str) -> Mapping[str, Any]:
    """What open_clip says of published weights of its own, `open_clip:NAME/TAG`; InputError where it knows none."""
    import open_clip  # which few starts need

    name, _, tag = spec.removeprefix(OPEN_CLIP).partition("/")
    known = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if not known:
        tags = few(open_clip.list_pretrained_tags_by_model(name))
        near = f"; of {name} it knows {tags}" if tags else "; write open_clip:NAME/TAG, open_clip:ViT-B-32/openai"
        raise InputError(f"start '{spec}': open_clip knows no published weights of that name{near}")
    return known


def _from_open_clip(spec: str, download: bool) -> Path:
    """The file of open_clip's published weights: of the hub where they are there, else where open_clip fetches them."""
    known = _open_clip_weights(spec)
    if download:
        from open_clip.pretrained import download_pretrained

        try:
            return Path(download_pretrained(known))
        except Exception as error:  # errors of whichever network client it uses
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"start '{spec}': could not be fetched: {reason}") from None
    repository, _, name = known.get("hf_hub", "").rpartition("/")
    names = [f"{Path(name).stem}.safetensors", name] if name else OPEN_CLIP_FILES
    places = [try_to_load_from_cache(repository, name) for name in names] if repository else []
    places += [] if repository else [Path("~/.cache/clip").expanduser() / Path(known["url"]).name]
    for place in places:
        if isinstance(place, str | Path) and Path(place).is_file():
            return Path(place)
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

    file, shown = _found(spec, download)
    return _fill(encoder, module, to_ours(module, read_checkpoint(file)), heads, shown)


def _found(spec: str, download: bool) -> tuple[Path, str]:
    """The weight file of a start, and what it is called in a report."""
    file = weight_file(resolve_start(spec, download=download))
    return file, spec if spec.startswith((PACKAGE, *HUB)) else str(file)


def _config_beside(file: Path) -> Mapping[str, Any]:
    """The config.json of the folder that weights lie in; empty where there is none."""
    beside = file.with_name("config.json")
    sizes = read_json(beside) if beside.is_file() else {}
    return sizes if isinstance(sizes, Mapping) else {}


def _unfit(fits: bool) -> str | None:
    return None if fits else "give weights of the architecture and sizes that the config names"


def _fill(
    encoder: str,
    module: nn.Module,
    state: Mapping[str, Tensor],
    heads: tuple[str, ...],
    shown: str,
    wrong: Callable[[bool], str | None] = _unfit,
) -> StartReport:
    """Fill a module from a state dict in its names; InputError, the module unchanged, where that does not fill it.

    heads: how names begin that may be dropped; wrong: given whether all tensors fit, what to say of what is wrong.
    """
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
            f"({'; '.join(problems)}); {wrong(False)}"
        )
    if said := wrong(True):
        raise InputError(f"{encoder}: {shown} does not fit: {said}")
    module.load_state_dict(own | given)
    return StartReport(encoder, shown, matched, len(needed), dropped)
