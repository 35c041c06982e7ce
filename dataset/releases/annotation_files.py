"""Annotation files, written: the counterpart of what dataset/annotations.py reads."""

import json
from collections.abc import Sequence
from typing import Any

from dataset.releases.listing import SPLITS, ListedPicture

Entries = list[dict[str, Any]]


def annotation_text(entries: Entries) -> str:
    """An annotation file of these records, one a line."""
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    return f"[\n{lines}\n]\n"


def annotation_entries(pictures: Sequence[ListedPicture]) -> dict[str, Entries]:
    """The records of each split's annotation file: one a caption for train, one a picture for val and test.

    Labels are numbered by name, those of the train split first; captions stay raw (reading cleans them).
    """
    train = [picture for picture in pictures if picture.split == "train"]
    trained = {picture.label_name for picture in train}
    names = {picture.label_name for picture in pictures if picture.label_name is not None}
    order = sorted(names, key=lambda name: (name not in trained, name))
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
