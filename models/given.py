"""What a caller gives to `load` and to a model's verbs, looked at before it is used: a mistake is one line."""

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from numpy import ndarray
from PIL import Image

from utils.arguments import device
from utils.errors import InputError, shown
from utils.output import BEST, EXPORTED_WEIGHTS, PREPROCESSING, config_in, weights_in


def check_load(checkpoint: str | Path, device_name: object, override: object, config: str | Path | None) -> None:
    """Raise InputError for what `load` cannot take, before anything is read."""
    check_list(override, "overrides")
    check_device(device_name)
    check_checkpoint(checkpoint, config)


def check_checkpoint(checkpoint: str | Path, given_config: str | Path | None = None) -> None:
    """Raise InputError, naming what was given, where there are no weights or no config, given or beside them."""
    given = Path(checkpoint)
    if not str(checkpoint) or not os.path.exists(checkpoint):
        raise InputError(f"no checkpoint at {str(checkpoint)!r}: give a folder or weights")
    folder = given if given.is_dir() else given.parent
    weights = Path(weights_in(str(checkpoint)))
    if not weights.exists() or weights.suffix == ".onnx":
        if (folder / PREPROCESSING).exists():
            raise InputError(f"{checkpoint} is of an ONNX export; load reads the formats folder and compact")
        if given.is_dir():
            raise InputError(f"{checkpoint} holds neither {BEST} nor {EXPORTED_WEIGHTS}: give a folder that does")
    config = Path(config_in(str(folder)) or "")
    if given_config is None and not config.exists():
        raise InputError(f"{checkpoint} has no config: {config.name} must lie beside {weights.name}")


def check_device(given: object) -> None:
    """Raise InputError for what the command line's --device would not take."""
    try:
        device(given if isinstance(given, str) else "")
    except argparse.ArgumentTypeError:
        raise InputError(f"{shown(given)} is no device: give auto, cpu, cuda or cuda:N") from None


def check_list(given: object, what: str) -> None:
    """Raise InputError for what is no list: a single name, sentence or picture, nothing, a generator."""
    if isinstance(given, str | bytes | Path):
        raise InputError(f"{what} are given as a list; for one, write [{shown(given)}]")
    if isinstance(given, Image.Image) or (isinstance(given, ndarray) and given.ndim in (2, 3)):
        raise InputError(f"{what} are given as a list; for one, write [picture]")
    if isinstance(given, Mapping) or not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        raise InputError(f"{what} are a {type(given).__name__}; give a list")


def check_sentences(given: Iterable[object]) -> None:
    """Raise InputError for what is no list of texts."""
    check_list(given, "sentences")
    for number, sentence in enumerate(given):
        if not isinstance(sentence, str):
            raise InputError(f"sentence {number} is a {type(sentence).__name__}; give a text")
