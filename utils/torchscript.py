"""The tensors of a TorchScript file, as OpenAI's CLIP archives are: its code is neither run nor compiled.

`torch.jit.save` writes a zip: code as text, which is left alone; the tree of modules as a pickle, `data.pkl`; and each
tensor's numbers as a member `data/KEY`. The pickle names a class for each module and one function of torch's for each
tensor. Here every module becomes a plain holder of what it holds and every tensor is cut from its member; a pickle
that names anything else is refused before it is made.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from utils.errors import InputError, reason

TREE = "data.pkl"
# Of a pickle's storages; OpenAI's are half and whole numbers.
KINDS = {
    f"{name}Storage": kind
    for name, kind in {
        "Half": torch.half,
        "BFloat16": torch.bfloat16,
        "Float": torch.float,
        "Double": torch.double,
        "Bool": torch.bool,
        "Byte": torch.uint8,
        "Char": torch.int8,
        "Short": torch.short,
        "Int": torch.int,
        "Long": torch.long,
    }.items()
}
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class _Module:
    """What stands for a module of the file, whatever its class: what it holds, by name."""

    held: Mapping[str, object] = {}

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module that does not say what it holds")
        self.held = state


class _TreeReader(pickle.Unpickler):
    """Reads a tree of modules; of the classes and functions that it names, none is looked up."""

    def __init__(self, members: zipfile.ZipFile, root: str) -> None:
        super().__init__(BytesIO(members.read(root + TREE)))
        self.members, self.root = members, root

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or a function of the file; each time anew, so that a file can change none."""
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in KINDS:
            return KINDS[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor_maker()
        if (module, name) == ("collections", "OrderedDict"):
            return dict  # of a tensor's hooks, always empty
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage, `[count]`: ("storage", kind, member, device, count)."""
        _, kind, member, _, count = pid
        with self.members.open(f"{self.root}data/{member}") as numbers:
            content = bytearray(numbers.read())
        return torch.frombuffer(content, dtype=kind, count=count) if count else torch.empty(0, dtype=kind)


def _tensor_maker() -> Callable[..., Tensor]:
    def tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
        return storage.as_strided(size, stride, offset)  # which checks that they lie within

    return tensor


def is_torchscript(file: str | Path) -> bool:
    """Whether a zip of weights is of torch.jit.save, not torch.save.

    Raises InputError for compressed weights: torch never compresses them, and a few megabytes may hold gigabytes.
    """
    with zipfile.ZipFile(file) as members:
        weights = [member for member in members.infolist() if "/code/" not in member.filename]
    if any(member.compress_type != zipfile.ZIP_STORED for member in weights):
        raise InputError(f"weights {file} are compressed, which torch.save never does; get them as published")
    return any(member.filename.endswith("/constants.pkl") for member in weights)


def read_torchscript(file: str | Path) -> dict[str, Tensor]:
    """Every tensor of a TorchScript file by its name: parameters, buffers, and what else its modules hold.

    Raises InputError in one line where it is damaged or its tree names anything but modules and tensors.
    """
    try:
        with zipfile.ZipFile(file) as members:
            root = next(name for name in members.namelist() if name.endswith(f"/{TREE}")).removesuffix(TREE)
            return dict(_tensors(_TreeReader(members, root).load(), ""))
    except Exception as error:  # damaged bytes can raise nearly anything inside the reader
        raise InputError(
            f"{file} is refused, nothing of it was run: its TorchScript tree of modules is damaged or holds more than "
            f"modules and tensors ({reason(error):.100}); get it again, or save its state_dict where you trust the file"
        ) from None


def _tensors(held: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a module, a list or a dictionary, with their names from the root."""
    if isinstance(held, Tensor):
        yield name, held
        return
    inside: Mapping[Any, object] = {}
    if isinstance(held, _Module):
        inside = held.held
    elif isinstance(held, dict):
        inside = held
    elif isinstance(held, list | tuple):
        inside = dict(enumerate(held))
    for key, value in inside.items():
        yield from _tensors(value, f"{name}.{key}" if name else str(key))
