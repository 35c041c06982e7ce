"""Pictures and the names of their classes: class folders, or the labels of annotation files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.annotations import read_evaluation, read_train
from dataset.classification import LabelledPicture, pictures_of_classes
from utils.errors import InputError
from utils.files import read_json


class ScenePictures(NamedTuple):
    """Pictures, each with the position of its class in `classes`; source: where they are from, for people to read."""

    classes: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]
    source: str


def read_pictures(images: Path, annotations: Sequence[str]) -> ScenePictures:
    """The pictures of a folder of class folders, or with annotation files those that they label. None is opened.

    Raises InputError for what is not as expected: no class folders, one without pictures, records without labels, a
    single class, a picture of two classes.
    """
    if not images.is_dir():
        raise InputError(f"--images {images} is not a folder: it must hold one folder of pictures a class")
    if annotations:
        class_of, source = _annotated(images, annotations), ", ".join(annotations)
    else:
        given, source = pictures_of_classes(images, "--images "), str(images)
        class_of = {picture: one for one, pictures in given.items() for picture in pictures}
    classes = tuple(sorted(set(class_of.values())))
    if len(classes) < 2:
        raise InputError(f"{source}: all pictures are of class {classes[0]!r}; give two classes or more")
    number = {one: position for position, one in enumerate(classes)}
    pictures = tuple(LabelledPicture(picture, number[one]) for picture, one in class_of.items())
    return ScenePictures(classes, pictures, source)


def _annotated(images: Path, files: Sequence[str]) -> dict[str, str]:
    """The class of each picture in annotation files, of training or evaluation."""
    class_of: dict[str, str] = {}
    for file in files:
        for picture, one in _labelled(file, images):
            if (other := class_of.setdefault(picture, one)) != one:
                raise InputError(f"{file}: {picture} is of class {one!r}, and of {other!r} in another record")
    return class_of


def _labelled(file: str, images: Path) -> list[tuple[str, str]]:
    """An annotation file's pictures and their classes: `label_name`, or the number where it has no names."""
    entries = read_json(file, "a JSON annotation file")
    first = entries[0] if isinstance(entries, list) and entries else None
    if isinstance(first, dict) and isinstance(first.get("caption"), str):  # one caption a record: of training
        records = read_train([file], images, labels_required=True)
        return [(record.image, record.label_name or str(record.label)) for record in records]
    evaluation = read_evaluation(file, images)
    names = evaluation.label_names or [str(label) for label in evaluation.labels or ()]
    if not names:
        raise InputError(f"{file}: its records have no label; Prepare.py --labels scene writes those of a release")
    return list(zip(evaluation.images, names, strict=True))
