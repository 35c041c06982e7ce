"""The published releases: where each keeps what, how it labels its pictures, and how it is read into a listing."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.releases.listing import SPLITS, ListedPicture, Listing
from dataset.releases.picture_index import PictureIndex
from utils.errors import InputError, listed
from utils.files import leads_outside, read_json, read_text

# A release's folder and picture names -> label names by picture, and the files that they were read from
Labelling = Callable[[Path, Sequence[str]], tuple[dict[str, str], list[Path]]]


def from_name(label_of: Callable[[str], str]) -> Labelling:
    """Labels that follow from the picture's name alone."""
    return lambda _, names: ({name: label_of(name) for name in names}, [])


def before_first_underscore(name: str) -> str:
    """Released for RSICD, so that a picture named by a bare number is a class of its own."""
    return Path(name).stem.partition("_")[0]


def before_last_underscore(name: str) -> str:
    """RSITMD's class: `airport_4669.tif` shows an airport."""
    stem = Path(name).stem
    return stem.rpartition("_")[0] or stem


UCM_CLASSES = (
    *("agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential"),
    *("forest", "freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark"),
    *("overpass", "parkinglot", "river", "runway", "sparseresidential", "storagetanks", "tenniscourt"),
)


def ucm_class(name: str) -> str:
    """UCM's class by number: `1.tif` to `100.tif` are the first, `2001.tif` to `2100.tif` the last."""
    stem = Path(name).stem
    if not re.fullmatch(r"[0-9]{1,4}", stem) or not 1 <= int(stem) <= 100 * len(UCM_CLASSES):
        raise InputError(f"picture {name!r:.80} has no class: its name must be a number from 1 to 2100")
    return UCM_CLASSES[(int(stem) - 1) // 100]


def class_lists(class_folder: str) -> Labelling:
    """Scene classes: `class_folder` holds `CLASS.txt` files that list the pictures of a class, one a line."""

    def labels(folder: Path, names: Sequence[str]) -> tuple[dict[str, str], list[Path]]:
        files = sorted((folder / class_folder).glob("*.txt"))
        if not files:
            raise InputError(f"{folder / class_folder} holds no class lists (CLASS.txt)")
        classes: defaultdict[str, list[str]] = defaultdict(list)
        for file in files:
            for name in {line.strip().casefold() for line in read_text(file).splitlines()}:
                classes[name].append(file.stem)
        found = {name: classes[name.casefold()] for name in names}
        problems = [
            f"{name!r} is in {'the classes ' + ' and '.join(several) if several else 'no class'}"
            for name, several in found.items()
            if len(several) != 1
        ]
        if problems:
            raise InputError(f"{folder / class_folder}: {listed(problems)}")
        return {name: only for name, (only,) in found.items()}, files

    return labels


@dataclass(frozen=True)
class Release:
    """Where a published release keeps what; another release is another instance in `RELEASES`."""

    captions_file: str  # {"images": [{"filename", "split", "sentences": [{"raw"}]}]}
    image_folders: tuple[str, ...]  # names the folder of the pictures is published under
    picture_name: re.Pattern[str]  # a number in a group is at most `picture_count`
    picture_count: int
    labels: dict[str, Labelling]  # by the name the user chooses them with, the default first; empty: none published

    def read(self, folder: Path, labels: str | None) -> Listing:
        """The release in `folder` with the labels chosen (None: the default).

        Raises InputError that counts and names what is not of the published form.
        """
        labels = self.labels_chosen(labels)
        file = folder / self.captions_file
        read: list[tuple[str, str, tuple[str, ...]]] = []
        problems: list[str] = []
        for number, entry in enumerate(_images(file), 1):
            try:
                read.append(_picture(entry))
            except InputError as problem:
                problems.append(f"image {number}: {problem}")
        if problems:
            raise InputError(f"{file}: {listed(problems)}")
        self._check_identity(file, [name for name, _, _ in read])
        image_root = self._image_root(folder)
        index = PictureIndex(image_root)
        files = {name: index.find(name) for name, _, _ in read}
        found = [name for name, path in files.items() if path is not None]
        label_of, sources = self.labels[labels](folder, found) if labels else ({}, [])
        pictures = [
            ListedPicture(name, files[name] or name, files[name] is not None, split, captions, label_of.get(name))
            for name, split, captions in read
        ]
        return Listing(image_root, pictures, [file, *sources])

    def labels_chosen(self, labels: str | None) -> str | None:
        """The kind of labels to use; `InputError` for one the release does not have."""
        if labels is None:
            return next(iter(self.labels), None)
        if labels not in self.labels:
            has = " and ".join(self.labels) or "none: leave --labels out"
            raise InputError(f"labels {labels!r}: this release has {has}")
        return labels

    def fits(self, names: Sequence[str]) -> bool:
        """Whether most names have this release's form and neither their number nor a number in one is above its own."""
        matches = [match for match in map(self.picture_name.fullmatch, names) if match]
        numbers = [int(match[1]) for match in matches if match.re.groups]
        return (
            2 * len(matches) > len(names)
            and len(names) <= self.picture_count
            and all(1 <= number <= self.picture_count for number in numbers)
        )

    def _check_identity(self, file: Path, names: Sequence[str]) -> None:
        """Tell a release apart from the others, two of which share the name of their captions file."""
        others = [name for name, other in RELEASES.items() if other is not self and other.fits(names)]
        whole = [name for name in others if RELEASES[name].picture_count == len(names)]
        if self.fits(names) and not whole:
            return
        hint = f"; give --dataset {' or '.join(whole or others)}" if others else ""
        raise InputError(
            f"{file} lists {len(names):,} pictures such as {names[0]!r:.80}, which is not this release "
            f"({self.picture_count:,} pictures){hint}"
        )

    def _image_root(self, folder: Path) -> Path:
        for name in self.image_folders:
            if (folder / name).is_dir():
                return folder / name
        raise InputError(f"{folder} has no folder of pictures ({' or '.join(self.image_folders)})")


_BY_NAME = from_name(before_last_underscore)
_BY_NUMBER = from_name(ucm_class)

RELEASES = {
    "rsicd": Release(
        captions_file="dataset_rsicd.json",
        image_folders=("images", "RSICD_images"),
        picture_name=re.compile(r"(?:[a-z]+_)?\d+\.jpg", re.IGNORECASE),
        picture_count=10921,
        labels={"name": from_name(before_first_underscore), "scene": class_lists("txtclasses_rsicd")},
    ),
    "rsitmd": Release(
        captions_file="dataset_RSITMD.json",
        image_folders=("images",),
        picture_name=re.compile(r"[a-z]+_\d+\.tiff?", re.IGNORECASE),
        picture_count=4743,
        labels={"name": _BY_NAME, "scene": _BY_NAME},
    ),
    "ucm": Release(
        captions_file="dataset.json",
        image_folders=("imgs", "images"),
        picture_name=re.compile(r"([0-9]+)\.tiff?", re.IGNORECASE),
        picture_count=2100,
        labels={"name": _BY_NUMBER, "scene": _BY_NUMBER},
    ),
    "sydney": Release(
        captions_file="dataset.json",
        image_folders=("imgs", "images"),
        picture_name=re.compile(r"([0-9]+)\.tiff?", re.IGNORECASE),
        picture_count=613,
        labels={},
    ),
}


def _images(file: Path) -> list[Any]:
    """The picture entries of a release's captions file."""
    if not file.is_file():
        others = [name for name, other in RELEASES.items() if (file.parent / other.captions_file).is_file()]
        hint = f": there is the captions file of {' or '.join(others)}" if others else ""
        raise InputError(f"cannot read {file}: no such file{hint}")
    release = read_json(file)
    images = release.get("images") if isinstance(release, dict) else None
    if not isinstance(images, list) or not images:
        raise InputError(f'{file} is not the release\'s captions file: it has no list "images"')
    return images


def _picture(entry: Any) -> tuple[str, str, tuple[str, ...]]:
    """File name, split and raw captions of one entry of `images`."""
    if not isinstance(entry, dict):
        raise InputError("is not a JSON object")
    name, split, sentences = (entry.get(key) for key in ("filename", "split", "sentences"))
    if not isinstance(name, str) or not name or not (name == Path(name).name or leads_outside(name)):
        raise InputError(f"filename {name!r:.80} is not the name of a file")
    if split not in SPLITS:
        raise InputError(f"{name!r} has the split {split!r:.40}, none of {', '.join(SPLITS)}")
    if not isinstance(sentences, list) or not all(
        isinstance(sentence, dict) and isinstance(sentence.get("raw"), str) for sentence in sentences
    ):
        raise InputError(f'{name!r} has no "sentences" with a string "raw" each')
    return name, split, tuple(sentence["raw"] for sentence in sentences)
