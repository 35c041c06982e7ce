"""Weights in safetensors files: plain ones, and compact ones, which become float32 again.

A compact file says so in its metadata, `pir_compact`. In it an int8 tensor `NAME` has a scale a row, `NAME.row_scale`,
other floating tensors may be of half precision, and `same_as` names the tensors that are another one's equal.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from utils.errors import InputError, shown
from utils.files import check_regular

COMPACT, VERSION = "pir_compact", "1"
ROW_SCALE = ".row_scale"
SAME_AS = "same_as"


def read_safetensors(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, a compact one's restored to float32.

    Raises InputError in one line where it is missing or damaged: a header too long, sizes that do not fit the file.
    """
    try:
        check_regular(Path(file))
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no mapping
    except InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        why = error.strerror or "no such file"
        raise InputError(f"weights {file} cannot be read ({why}); name an existing file") from None
    except Exception as error:  # the library's own, or torch's for a kind of number that it has not
        raise InputError(f"{file} is damaged or no weight file ({type(error).__name__}); get it again") from None
    return _restored(state, about, file) if COMPACT in about else state


def _restored(state: dict[str, Tensor], about: dict[str, str], file: str | Path) -> dict[str, Tensor]:
    """A compact file's tensors under the names of the model's, in float32."""
    if about[COMPACT] != VERSION:
        raise InputError(f"{file} is compact by rule {shown(about[COMPACT])}, this program knows {VERSION}: update it")
    scales = {name + ROW_SCALE for name, tensor in state.items() if tensor.dtype == torch.int8}
    restored = {}
    for name, tensor in state.items():
        if name in scales:
            continue
        if tensor.dtype == torch.int8:
            scale = state.get(name + ROW_SCALE)
            if tensor.ndim < 2 or scale is None or scale.shape != tensor.shape[:1] or not scale.is_floating_point():
                raise InputError(f"{file} is damaged: '{name}' has not one scale a row; get it again")
            tensor = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
        restored[name] = tensor.float() if tensor.is_floating_point() else tensor
    try:
        same = json.loads(about.get(SAME_AS, "{}"))
        return restored | {name: restored[other] for name, other in same.items()}
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise InputError(f"{file} is damaged: its '{SAME_AS}' names no tensors of it; get it again") from None
