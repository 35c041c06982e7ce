"""A model -> an exported folder, which `load` and run.py read wherever it lies (docs/embedding.md)."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save

from export.card import CARD, is_untouched, write_card
from export.compact import compacted
from models.embedder import Embedder
from models.released import DERIVED, released_state_dict
from utils.errors import InputError
from utils.exported import ABOUT, is_exported
from utils.files import read_json
from utils.output import EXPORTED_CONFIG, EXPORTED_WEIGHTS, PREPROCESSING

IMAGE, TEXT = "image_encoder.onnx", "text_encoder.onnx"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt")
WRITTEN = {EXPORTED_CONFIG, EXPORTED_WEIGHTS, PREPROCESSING, IMAGE, TEXT, CARD, *TOKENIZER}  # in any format


def write_model(model: Embedder, folder: Path, *, compact: bool) -> None:
    """Write config, weights, tokenizer and a card to be filled in; compact: the weights stored small."""
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in released_state_dict(model.model).items()
        if name.rsplit(".", 1)[-1] not in DERIVED
    }
    tensors, about = compacted(state) if compact else (state, {})
    # Not save_file, whose error for a full disk is no OSError.
    (folder / EXPORTED_WEIGHTS).write_bytes(save(tensors, {"format": "pt", **about}))
    values = ABOUT | model.config.to_dict() | {"tokenizer": "."}
    (folder / EXPORTED_CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    model.tokenizer.save_pretrained(str(folder))
    write_card(model.config, folder)


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Raise InputError where something is in the folder's place that may not be replaced.

    With `overwrite` an earlier export may, of any format; its card is kept where it was filled in, see `new_folder`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder} is a file; name a folder")
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    if there and not overwrite:
        raise InputError(f"{folder} is not empty; give --overwrite, or another --output_dir")
    for file in there:
        if file.name not in WRITTEN or not file.is_file():
            raise InputError(f"{folder} holds {file.name}, which this would remove; give another --output_dir")
    if there and not _is_export(folder):
        raise InputError(
            f"{folder} holds {there[0].name}, but no sign of an earlier export, which alone --overwrite replaces; "
            "give another --output_dir"
        )


def _is_export(folder: Path) -> bool:
    """Whether a file there says that an export wrote it."""
    try:
        settings = folder / PREPROCESSING
        return is_exported(folder) or (settings.exists() and {"image", "text", "embedding"} <= set(read_json(settings)))
    except (InputError, TypeError):  # no JSON, or none of ours
        return False


@contextmanager
def new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside `folder` to write to, which takes its place at the end; where that fails, nothing is left of it.

    A card that was filled in is there from the start, so that it is kept. Errors: as `check_free`, and InputError where
    the folder cannot be written.
    """
    check_free(folder, overwrite=overwrite)
    place = Path(os.path.realpath(folder))  # `.` has a name too, and a link stays
    partial, old = (place.with_name(f".{place.name}.{os.getpid()}.{kind}") for kind in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        if (place / CARD).exists() and not is_untouched(place / CARD):
            shutil.copy2(place / CARD, partial / CARD)
        yield partial
        check_free(folder, overwrite=overwrite)  # again, as it took a while
        if place.is_dir():
            os.replace(place, old)
        os.replace(partial, place)
    except OSError as error:
        if old.is_dir() and not place.exists():
            os.replace(old, place)
        raise InputError(f"--output_dir {folder} cannot be written ({error.strerror})") from None
    finally:
        for rest in (partial, old):
            shutil.rmtree(rest, ignore_errors=True)
