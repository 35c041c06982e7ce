"""Atomic save and safe load of files of torch.save."""

import errno
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import InputError
from utils.files import check_regular, written_whole

# For a file with other objects, on a machine where it is trusted: `python -c CONVERSION OLD NEW`.
CONVERSION = (
    "import sys, torch; old = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
    "torch.save({'model': old.get('model', old.get('state_dict', old))}, sys.argv[2])"
)


# Kinds that are copied into one another.
COPIED = (torch.half, torch.bfloat16, torch.float, torch.double, torch.int, torch.long, torch.uint8, torch.bool)
ADAPTER_BASE = "adapter.base"  # in a file with an adapter alone: the sha256 of what it adds to
KEYS = ("model", "state_dict", "model_state_dict")  # of a state dict in a training's file
PREFIXES = ("module.", "_orig_mod.", "model.")  # of names: DistributedDataParallel's, torch.compile's, Lightning's


def save(file: Path, content: Mapping[str, Any]) -> None:
    """Write `content` with torch.save, whole or not at all; `InputError` where the disk is full."""
    with written_whole(file) as temporary:
        try:
            torch.save(dict(content), temporary)
        except RuntimeError as error:  # torch's writer does not say what the system said
            if "write" not in str(error) and "unexpected pos" not in str(error):
                raise
            raise OSError(errno.ENOSPC, f"no space left, or not as much as may be written: {file.parent}") from None


def save_checkpoint(file: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a checkpoint in the released form: `model`, a state dict in the released layout, and `config`."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    save(file, {"model": plain, "config": dict(config)})


def read_checkpoint(file: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file: under `model`, as released, or bare; or of a safetensors file."""
    if Path(file).suffix == ".safetensors":
        from utils.safe_weights import read_safetensors  # here, as most runs read no such file

        return state_dict_in(read_safetensors(file), file)
    return state_dict_in(read_torch_file(file), file)


def read_torch_file(file: str | Path) -> Any:
    """What a file of torch.save holds, tensors, plain values and `stand_ins`: no code in it is run.

    Raises InputError in one line where it is missing, damaged, or holds other objects.
    """
    try:
        check_regular(Path(file))
        if zipfile.is_zipfile(file):
            from utils.torchscript import is_torchscript, read_torchscript

            if is_torchscript(file):
                return read_torchscript(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on foreign files; the error below says it in one line
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                from utils.stand_ins import stand_ins  # which old checkpoints alone need

                with torch.serialization.safe_globals(stand_ins()):
                    return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"weights {file} cannot be read ({error.strerror}); name an existing file") from None
    except Exception as error:  # damaged bytes can raise nearly anything inside the reader
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            convert = shlex.join(["python", "-c", CONVERSION, str(file), f"{file}.plain"])
            raise InputError(
                f"{file} is refused, nothing of it was run: beside tensors it holds pickled code or objects "
                f"({refused[1]}); on a machine where you trust the file, save its tensors alone: {convert}"
            ) from None
        raise InputError(f"{file} is damaged or no weight file ({type(error).__name__}); get it again") from None


def state_dict_in(content: Any, file: str | Path) -> dict[str, Tensor]:
    """The state dict in a file's content, bare or under one of `KEYS`, without the `PREFIXES` of wrappers.

    Raises InputError naming `file` for anything else than named dense tensors.
    """
    for key in KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{file} holds no state dict, bare or under 'model' or 'state_dict'")
    for name, value in content.items():
        if not isinstance(name, str) or not _is_dense(value):
            kind = "no dense tensor" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{file} holds no plain state dict: '{name}' is {kind}")
    state = dict(content)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def misfits(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, list[tuple[str, str]]]:
    """Which of a file's tensors cannot be copied into a model's of the same names: by what is wrong, (name, detail).

    A copy may lose precision alone: whole, complex or quantised numbers for floating ones, and numbers that are not
    finite, would be taken without a word.
    """
    found: dict[str, list[tuple[str, str]]] = {"of another shape": [], "of another kind": [], "not finite": []}
    for name, tensor in own.items():
        value = given.get(name)
        if value is None:
            continue
        if value.shape != tensor.shape:
            found["of another shape"].append((name, f" {list(value.shape)} for {list(tensor.shape)}"))
        elif value.is_floating_point() != tensor.is_floating_point() or value.dtype not in COPIED:
            kinds = (str(x.dtype).removeprefix("torch.") for x in (value, tensor))
            found["of another kind"].append((name, " {} for {}".format(*kinds)))
        elif not value.isfinite().all():
            found["not finite"].append((name, ""))
    return {kind: tensors for kind, tensors in found.items() if tensors}


def _is_dense(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )
