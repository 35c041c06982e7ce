"""A model -> an exported folder, which `load` and run.py read wherever it lies (docs/embedding.md)."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

import torch
from safetensors.torch import save

from export.compact import compacted
from models.embedder import Embedder
from models.released import DERIVED, released_state_dict
from utils.errors import InputError
from utils.exported import ABOUT
from utils.output import EXPORTED_CONFIG, EXPORTED_WEIGHTS

CARD = Path(__file__).with_name("card.md")


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
    write_card(model, folder)


def write_card(model: Embedder, folder: Path) -> None:
    """Write `README.md`: what is known of the model, and what its author is to fill in."""
    c = model.config
    known = {"train": ", ".join(c.train_file), "test": c.test_file, "size": c.image_res, "dim": c.embed_dim}
    card = Template(CARD.read_text(encoding="utf-8")).substitute(known)
    (folder / "README.md").write_text(card, encoding="utf-8")


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Raise InputError where something is in the folder's place that may not be replaced."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder} is a file; name a folder")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; give --overwrite, or another --output_dir")


@contextmanager
def new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside `folder` to write to, which takes its place at the end; where that fails, nothing is left of it.

    Raises InputError where it cannot be written, or where `folder` holds other files than those written.
    """
    check_free(folder, overwrite=overwrite)
    place = Path(os.path.abspath(folder))  # `.` has a name too
    partial, old = (place.with_name(f".{place.name}.{os.getpid()}.{kind}") for kind in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if place.is_dir():
            strange = sorted({file.name for file in place.iterdir()} - {file.name for file in partial.iterdir()})
            if strange:
                raise InputError(f"{folder} holds {strange[0]}, which this would remove; give another --output_dir")
            os.replace(place, old)
        os.replace(partial, place)
    except OSError as error:
        if old.is_dir() and not place.exists():
            os.replace(old, place)
        raise InputError(f"--output_dir {folder} cannot be written ({error.strerror})") from None
    finally:
        for rest in (partial, old):
            shutil.rmtree(rest, ignore_errors=True)
