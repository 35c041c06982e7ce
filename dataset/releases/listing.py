"""The pictures of a data set as its makers list them, before anything is left out."""

from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "val", "test")


class ListedPicture(NamedTuple):
    """A picture as a data set lists it; a name may come twice."""

    name: str
    file: str  # under the image folder, as it is on disk; the name where it is not found
    found: bool
    split: str
    captions: tuple[str, ...]  # raw
    label_name: str | None  # None where the set has no labels, and where the file is not found


class Listing(NamedTuple):
    """The pictures of a data set in its own order."""

    image_root: Path
    pictures: list[ListedPicture]
    sources: list[Path]  # the files it was read from, the pictures apart
