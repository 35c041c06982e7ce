"""Pictures that two splits share: by their paths, and by the hashes in a report of `Prepare.py`."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError
from utils.files import read_json

REPORT = "report.json"  # what `Prepare.py` writes beside the annotation files


class Split(NamedTuple):
    """The pictures of annotation files, and what a line calls those files."""

    name: str
    files: Sequence[str]
    pictures: Collection[str]


def shared_pictures(splits: Sequence[Split]) -> Iterator[str]:
    """A line for each two splits that have pictures in common, and one where pictures only look the same.

    Those that look the same have equal hashes in the `report.json` beside their annotation files.
    """
    splits = [split for split in splits if split.pictures]
    if len(splits) < 2:  # an evaluation alone: no report need be read
        return
    reports = {Path(file).with_name(REPORT) for split in splits for file in split.files}
    hashes = {place: text for report in reports if report.is_file() for place, text in _hashes(report)}
    places = [{os.path.realpath(picture) for picture in split.pictures} for split in splits]
    for number, split in enumerate(splits):
        for other in range(number):
            shared = places[number] & places[other]
            looks = {hashes[place] for place in places[other] - shared if place in hashes}
            alike = {place for place in places[number] - shared if hashes.get(place) in looks}
            name = splits[other].name
            if shared:
                yield f"warning: {len(shared)} pictures of {split.name} are in {name} too, {min(shared)} first"
            if alike:
                yield f"warning: {len(alike)} pictures of {split.name} look as one of {name} does, {min(alike)} first"


def _hashes(report: Path) -> Iterator[tuple[str, str]]:
    """(place, hash) of each picture of a report; nothing of one that is damaged, since it only helps."""
    try:
        values = read_json(report)
        root = report.parent / values["image_root"]
        known = [(image, text) for pictures in values["pictures"].values() for image, text in pictures.items()]
        yield from [(os.path.realpath(root / image), str(text)) for image, text in known]
    except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return
