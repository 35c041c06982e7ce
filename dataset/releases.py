"""What each published release looks like, read into checked pictures with captions, split and label."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dataset.captions import clean_caption
from utils.errors import InputError, listed

SPLITS = ("train", "val", "test")

# A release's folder and its picture file names -> the label's name of each picture
Labels = Callable[[Path, Sequence[str]], dict[str, str]]


class ReleasedPicture(NamedTuple):
    """A picture of a release: its file in the image folder, its own split, raw captions and label."""

    file: str
    split: str
    captions: tuple[str, ...]
    label_name: str


class ReleasedSet(NamedTuple):
    """The pictures of a release in its own order, and how many captions without a word were left out."""

    image_root: Path
    pictures: list[ReleasedPicture]
    captions_left_out: int


@dataclass(frozen=True)
class Release:
    """Where a published release keeps what; another release is another instance in `RELEASES`."""

    captions_file: str  # {"images": [{"filename", "split", "sentences": [{"raw"}]}]}
    image_folders: tuple[str, ...]  # names the folder of the pictures is published under
    labels: Mapping[str, Labels]  # by the name the user chooses them with
    task: str  # of run.py

    def read(self, folder: Path, labels: str) -> ReleasedSet:
        """The release in `folder`; `InputError` counting and naming what is not as published."""
        if labels not in self.labels:
            raise InputError(f"labels {labels!r}: this release has {' and '.join(self.labels)}")
        image_root = self._image_root(folder)
        file = folder / self.captions_file
        problems: list[str] = []
        pictures: dict[str, tuple[str, tuple[str, ...]]] = {}  # file name -> split, captions
        left_out = 0
        for number, entry in enumerate(_images(file), 1):
            try:
                name, split, captions = _picture(entry)
                if name in pictures:
                    raise InputError(f"{name!r} is in the release twice")
                if not (image_root / name).is_file():
                    raise InputError(f"{name!r} is not in {image_root}")
                with_words = tuple(raw for raw in captions if _has_words(raw))
                if not with_words:
                    raise InputError(f"{name!r} has no caption with a word in it")
            except InputError as problem:
                problems.append(f"image {number}: {problem}")
                continue
            pictures[name] = split, with_words
            left_out += len(captions) - len(with_words)
        if problems:
            raise InputError(f"{file}: {listed(problems)}")
        empty = [split for split in SPLITS if split not in {split for split, _ in pictures.values()}]
        if empty:
            raise InputError(f"{file} has no picture of the split {' and '.join(empty)}")
        label_of = self.labels[labels](folder, list(pictures))
        return ReleasedSet(
            image_root,
            [ReleasedPicture(name, *split_captions, label_of[name]) for name, split_captions in pictures.items()],
            left_out,
        )

    def _image_root(self, folder: Path) -> Path:
        for name in self.image_folders:
            if (folder / name).is_dir():
                return folder / name
        raise InputError(f"{folder} has no folder of pictures ({' or '.join(self.image_folders)})")


def labels_from_names(_: Path, names: Sequence[str]) -> dict[str, str]:
    """Released: the file name before `_`, so that a picture named by a bare number is a class of its own."""
    return {name: Path(name).stem.partition("_")[0] for name in names}


def labels_from_class_lists(class_folder: str) -> Labels:
    """Scene classes: `class_folder` holds `CLASS.txt` files that list the pictures of a class, one a line."""

    def labels(folder: Path, names: Sequence[str]) -> dict[str, str]:
        files = sorted((folder / class_folder).glob("*.txt"))
        if not files:
            raise InputError(f"{folder / class_folder} holds no class lists (CLASS.txt)")
        classes: dict[str, list[str]] = {name: [] for name in names}
        for file in files:
            for name in {line.strip() for line in _read_text(file).splitlines()} & classes.keys():
                classes[name].append(file.stem)
        problems = [
            f"{name!r} is in {'no class' if not found else 'the classes ' + ' and '.join(found)}"
            for name, found in classes.items()
            if len(found) != 1
        ]
        if problems:
            raise InputError(f"{folder / class_folder}: {listed(problems)}")
        return {name: found[0] for name, found in classes.items()}

    return labels


RELEASES = {
    "rsicd": Release(
        captions_file="dataset_rsicd.json",
        image_folders=("images", "RSICD_images"),
        labels={"name": labels_from_names, "scene": labels_from_class_lists("txtclasses_rsicd")},
        task="itr_rsicd_lite",
    ),
}


def _images(file: Path) -> list[Any]:
    """The picture entries of a release's captions file."""
    try:
        release = json.loads(_read_text(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON, or is cut short: {error}") from None
    images = release.get("images") if isinstance(release, dict) else None
    if not isinstance(images, list) or not images:
        raise InputError(f'{file} is not the release\'s captions file: it has no list "images"')
    return images


def _picture(entry: Any) -> tuple[str, str, list[str]]:
    """File name, split and raw captions of one entry of `images`."""
    if not isinstance(entry, dict):
        raise InputError("is not a JSON object")
    name, split, sentences = (entry.get(key) for key in ("filename", "split", "sentences"))
    if not isinstance(name, str) or name != Path(name).name:
        raise InputError(f"filename {name!r:.80} is not the name of a file")
    if split not in SPLITS:
        raise InputError(f"{name!r} has the split {split!r:.40}, none of {', '.join(SPLITS)}")
    if not isinstance(sentences, list) or not all(
        isinstance(sentence, dict) and isinstance(sentence.get("raw"), str) for sentence in sentences
    ):
        raise InputError(f'{name!r} has no "sentences" with a string "raw" each')
    return name, split, [sentence["raw"] for sentence in sentences]


def _has_words(raw: str) -> bool:
    try:
        return bool(clean_caption(raw))
    except InputError:
        return False


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text: {error}") from None
