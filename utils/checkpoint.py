"""Atomic save and safe load of files of torch.save."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import InputError


def save(file: Path, content: Mapping[str, Any]) -> None:
    """Write `content` with torch.save, whole or not at all."""
    beside = file.with_name(file.name + ".partial")
    torch.save(dict(content), beside)
    os.replace(beside, file)


def save_checkpoint(file: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a checkpoint in the released form: `model`, a state dict in the released layout, and `config`."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    save(file, {"model": plain, "config": dict(config)})


def read_torch_file(file: str | Path) -> dict[str, Any]:
    """The mapping in a file of torch.save, tensors and plain values only: no code in it is run.

    Raises InputError in one line where it is missing, damaged, or holds other objects.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"weights {file} cannot be read ({error.strerror}); name an existing file") from None
    except pickle.UnpicklingError:
        raise InputError(
            f"weights {file} hold objects other than tensors and plain values, and code from a file is not run; "
            "on a machine where you trust the file, load it and save its tensors again: "
            "torch.save({'model': state_dict, 'config': dict(config)}, file)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"weights {file} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise InputError(f"weights {file} hold a {type(content).__name__}, expected a mapping of names to tensors")
    return content


def read_checkpoint(file: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file: under `model`, as released, or bare."""
    content = read_torch_file(file)
    state = content.get("model", content)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"weights {file} hold no state dict under 'model'")
    return state
