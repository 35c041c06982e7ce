"""Annotation files -> checked, immutable records. Imports no torch: the launcher reads them too."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset.captions import clean_caption
from utils.errors import InputError, listed
from utils.files import leads_outside, read_json

_NAMES = {str: "a string", int: "a whole number", list: "a list"}


class TrainRecord(NamedTuple):
    """One caption and its picture; `image_id` counts the pictures from 0 in order of first appearance."""

    caption: str
    image: str
    image_id: int
    label: int | None
    label_name: str | None


class EvaluationSet(NamedTuple):
    """Pictures and cleaned captions in file order, the captions of a picture together.

    `own_image_of_text[i]` is the position in `images` of caption i's picture; `labels`, `label_names` and `names`,
    the pictures as the file names them, have one a picture.
    """

    images: tuple[str, ...]
    captions: tuple[str, ...]
    own_image_of_text: list[int]
    labels: list[int] | None
    label_names: list[str] | None = None  # None where a picture has none
    names: tuple[str, ...] = ()


def read_train(
    files: Sequence[str | Path],
    image_root: str | Path,
    *,
    max_words: int = 30,
    labels_required: bool,
    image_roots: Sequence[str | Path] | None = None,
    ids_by_path: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[TrainRecord]:
    """Every caption of the train annotation files, one file after another.

    image_roots: a folder a file, where they have pictures in different ones. ids_by_path: tell pictures apart by their
    files, whatever `image_id` says. say: is given a line for what was changed so that the files go together: picture
    ids that two files use for different pictures are numbered anew, and so are labels, by name.

    Raises `InputError` that counts the problems of all files and names the first by file and record (from 1).
    """
    if not files:
        raise InputError("train_file names no annotation file")
    roots = {root: PictureFolder(root) for root in image_roots or [image_root]}
    problems: list[str] = []
    records: list[TrainRecord] = []
    picture_ids: dict[str, int] = {}  # of each picture, over all files
    numberings = []
    for file, root in zip(files, image_roots or [image_root] * len(files), strict=True):
        numbering, first = _Numbering(ids_by_path), len(records)
        for number, entry in enumerate(_entries(file, caption_type=str), 1):
            try:
                caption = clean_caption(_field(entry, "caption", str), max_words)
                image = roots[root].path(_field(entry, "image", str))
                image_id = _field(entry, "image_id", int, required=not ids_by_path)
                label = _field(entry, "label", int, required=labels_required)
                label_name = _field(entry, "label_name", str, required=False)
                numbering.check_picture(image, image_id)
                if labels_required:
                    numbering.check_label(image, label, label_name)
            except InputError as problem:
                problems.append(f"{file} record {number}: {problem}")
                continue
            # Two folders may hold one picture, by links or under two spellings.
            picture_id = picture_ids.setdefault(os.path.realpath(image) if image_roots else image, len(picture_ids))
            records.append(TrainRecord(caption, image, picture_id, label, label_name))
        numberings.append(numbering)
        if len(files) > 1:  # a scene that a file names once is so named in all of its records
            named = numbering.name_of_label
            records[first:] = [r._replace(label_name=r.label_name or named.get(r.label)) for r in records[first:]]
    if problems:
        raise InputError(listed(problems))
    given = {pair for numbering in numberings for pair in numbering.image_of_id.items()}
    if len({picture_id for picture_id, _ in given}) < len(given):
        say("picture ids of the training files collide: pictures are numbered anew, by their files")
    return _with_joint_labels(records, numberings, say) if labels_required else records


class _Numbering:
    """How one file numbers its pictures and scenes: each number one thing, each thing one number."""

    def __init__(self, ids_by_path: bool) -> None:
        self.ids_by_path = ids_by_path
        self.image_of_id: dict[int, str] = {}
        self.id_of_image: dict[str, int] = {}
        self.name_of_label: dict[int | None, str | None] = {}
        self.label_of_name: dict[str, int] = {}
        self.label_of_image: dict[str, int] = {}

    def check_picture(self, image: str, image_id: int) -> None:
        """Raise `InputError` where the id is another picture's, or the picture has another id."""
        if self.ids_by_path:
            return
        if self.image_of_id.setdefault(image_id, image) != image:
            raise InputError(f"image_id {image_id} belongs to {self.image_of_id[image_id]!r} already")
        if (other := self.id_of_image.setdefault(image, image_id)) != image_id:
            raise InputError(
                f"{image!r} has image_id {other} and {image_id}, so that its captions would be each other's negatives: "
                "number pictures, not captions, or set image_id: by_path"
            )

    def check_label(self, image: str, label: int, name: str | None) -> None:
        """Raise `InputError` where a scene has two numbers, a number two scenes or a picture two labels."""
        if None not in (name, other := self.name_of_label.get(label)) and other != name:
            raise InputError(f"label {label} is both {other!r} and {name!r}")
        self.name_of_label[label] = name if name is not None else other
        if name is not None and self.label_of_name.setdefault(name, label) != label:
            raise InputError(f"two labels are both named {name!r}: {self.label_of_name[name]} and {label}")
        if (first := self.label_of_image.setdefault(image, label)) != label:
            raise InputError(f"{image} has the labels {first} and {label}")


def _with_joint_labels(
    records: list[TrainRecord], numberings: Sequence[_Numbering], say: Callable[[str], None]
) -> list[TrainRecord]:
    """The records with one number a scene over all files: as they are where the files agree, else by name."""
    scenes = {pair for numbering in numberings for pair in numbering.name_of_label.items()}
    labels, names = {label for label, _ in scenes}, {name for _, name in scenes}
    # Without any name the numbers are believed; among named scenes one without a name may be any of them.
    agree = len(numberings) == 1 or names == {None} or (len(labels) == len(scenes) == len(names) and None not in names)
    if not agree and None in names:
        raise InputError(
            "the training files may number scenes differently, and not every record has a label_name: name them all, "
            "or train without use_affil_loss"
        )
    if not agree:
        say(f"labels of the training files mean different scenes: {len(names)} scenes are numbered anew, by name")
        number: dict[str | None, int] = {}
        records = [record._replace(label=number.setdefault(record.label_name, len(number))) for record in records]
    label_of: dict[int, int | None] = {}  # of each picture, over all files
    for record in records:
        if label_of.setdefault(record.image_id, record.label) != record.label:
            raise InputError(f"{record.image} has one label in a training file and another in the next")
    return records


def read_evaluation(file: str | Path, image_root: str | Path, *, max_words: int = 30) -> EvaluationSet:
    """The pictures and captions of a val or test annotation file.

    Raises `InputError` that counts the problems and names the first, by file and record (from 1).
    """
    pictures = PictureFolder(image_root)
    problems: list[str] = []
    record_of_image: dict[str, int] = {}
    captions: list[str] = []
    own_image_of_text: list[int] = []
    labels: list[int | None] = []
    label_names: list[str | None] = []
    names: list[str] = []
    for number, entry in enumerate(_entries(file, caption_type=list), 1):
        try:
            cleaned = _captions(entry, max_words)
            name = _field(entry, "image", str)
            image = pictures.path(name)
            label = _field(entry, "label", int, required=False)
            label_name = _field(entry, "label_name", str, required=False)
            if image in record_of_image:
                raise InputError(f"image {image!r} is in record {record_of_image[image]} already")
        except InputError as problem:
            problems.append(f"{file} record {number}: {problem}")
            continue
        own_image_of_text += [len(record_of_image)] * len(cleaned)
        record_of_image[image] = number
        captions += cleaned
        labels.append(label)
        label_names.append(label_name)
        names.append(name)
    if problems:
        raise InputError(listed(problems))
    known = [label for label in labels if label is not None]
    named = [label_name for label_name in label_names if label_name is not None]
    if known and len(known) < len(labels):
        raise InputError(f"{file}: {len(known)} of {len(labels)} records have a label: label all or none")
    return EvaluationSet(
        tuple(record_of_image),
        tuple(captions),
        own_image_of_text,
        known or None,
        named if len(named) == len(label_names) else None,
        tuple(names),
    )


class PictureFolder:
    """The picture files under `image_root`, each found on disk once however many captions it has."""

    def __init__(self, image_root: str | Path) -> None:
        self.root = os.fspath(image_root)
        self.found: dict[str, str] = {}
        if not os.path.isdir(self.root):
            raise InputError(f"image_root {self.root!r} is not a folder: it must hold the pictures")

    def path(self, image: str) -> str:
        """`image_root/image`; `InputError` where that lies outside `image_root` or is no file."""
        if image not in self.found:
            inside = inside_root(image, self.root)
            if leads_outside(inside):
                raise InputError(f"image {image!r} lies outside image_root {self.root!r}")
            path = os.path.join(self.root, inside)
            if not os.path.isfile(path):
                raise InputError(f"image {image!r} is not in image_root {self.root!r}")
            self.found[image] = path
        return self.found[image]


def inside_root(name: str, root: str | Path) -> str:
    """A picture's name from its folder on: an absolute path into the folder as well, any other as it leads."""
    if os.path.isabs(name):
        name = min((os.path.relpath(name, start) for start in (root, os.path.realpath(root))), key=leads_outside)
    return os.path.normpath(name)


def _entries(file: str | Path, caption_type: type) -> list[Any]:
    """The records of an annotation file, whose captions should be of `caption_type`."""
    entries = read_json(file, "a JSON annotation file")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file} must be a JSON list of at least one record")
    found = entries[0].get("caption") if isinstance(entries[0], dict) else None
    if caption_type is str and isinstance(found, list):
        raise InputError(f"{file} is an evaluation file (record 1 has a list of captions), not a train file")
    if caption_type is list and isinstance(found, str):
        raise InputError(f"{file} is a train file (record 1 has one caption), not an evaluation file")
    return entries


def _captions(entry: Any, max_words: int) -> list[str]:
    """The cleaned captions of an evaluation record."""
    raw_captions = _field(entry, "caption", list)
    if not raw_captions:
        raise InputError("'caption' is an empty list")
    if not all(isinstance(raw, str) for raw in raw_captions):
        raise InputError("'caption' must hold strings only")
    return [clean_caption(raw, max_words) for raw in raw_captions]


def _field(entry: Any, name: str, kind: type, *, required: bool = True) -> Any:
    """`entry[name]`, checked to be of exactly this type (so that true is no number); None if absent."""
    if not isinstance(entry, dict):
        raise InputError("is not a JSON object")
    if name not in entry:
        if required:
            raise InputError(f"has no {name!r}")
        return None
    value = entry[name]
    if type(value) is not kind:
        raise InputError(f"{name!r} must be {_NAMES[kind]}, not {value!r:.40}")
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise InputError(f"{name!r} {value!r:.40} does not fit 64 bits")
    return value
