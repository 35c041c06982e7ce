"""Annotation files, written: the counterpart of what dataset/annotations.py reads."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset.releases.listings import SPLITS, ListedPicture
from utils.errors import InputError

Entries = list[dict[str, Any]]


def annotation_texts(dataset: str, pictures: Sequence[ListedPicture]) -> dict[str, str]:
    """The annotation files of a data set, by file name, in the order of the splits."""
    texts = {}
    for split, entries in annotation_entries(pictures).items():
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        texts[f"{dataset}_{split}.json"] = f"[\n{lines}\n]\n"
    return texts


def annotation_entries(pictures: Sequence[ListedPicture]) -> dict[str, Entries]:
    """The records of each split's annotation file: one a caption for train, one a picture for val and test.

    Labels are numbered by name, those of the train split first; captions stay raw (reading cleans them).
    """
    train = [picture for picture in pictures if picture.split == "train"]
    train_labels = {picture.label_name for picture in train}
    names = {picture.label_name for picture in pictures} - {None}
    order = sorted(names, key=lambda name: (name not in train_labels, name))
    number = {name: label for label, name in enumerate(order)}

    def label(picture: ListedPicture) -> dict[str, Any]:
        name = picture.label_name
        return {} if name is None else {"label": number[name], "label_name": name}

    entries: dict[str, Entries] = {
        "train": [
            {"caption": caption, "image": picture.file, "image_id": image_id, **label(picture)}
            for image_id, picture in enumerate(train)
            for caption in picture.captions
        ]
    }
    for split in SPLITS[1:]:
        entries[split] = [
            {"image": picture.file, "caption": list(picture.captions), **label(picture)}
            for picture in pictures
            if picture.split == split
        ]
    return entries


def check_places(files: Iterable[Path]) -> None:
    """Raise InputError for a file that cannot be written because a folder, or a file above it, has its name."""
    for file in files:
        if file.is_dir():
            raise InputError(f"cannot write {file}: a folder has that name; move it or choose another --output_dir")
        if file.parent.exists() and not file.parent.is_dir():
            raise InputError(f"cannot write to {file.parent}: it is a file; move it or choose another --output_dir")


def write_all(texts: Mapping[Path, str], moved: Mapping[Path, Path], removed: Sequence[Path]) -> None:
    """Write every text beside its place, and only then replace: `removed` goes, `moved` comes (place -> where it is).

    Until all is written the old files stay. The last text vouches for the others: its old file goes before anything
    is replaced and its new one comes last, so that a crash in between never looks done. Raises `InputError`.
    """
    check_places([*removed, *moved, *texts])
    beside = {file: file.with_name(f".{file.name}.partial") for file in texts}
    last = file = list(texts)[-1]
    try:
        for file, text in texts.items():
            beside[file].write_text(text, encoding="utf-8")
        for file in (last, *removed):
            file.unlink(missing_ok=True)
        for file, written in (*moved.items(), *beside.items()):
            os.replace(written, file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from None
    finally:
        for written in beside.values():
            written.unlink(missing_ok=True)
