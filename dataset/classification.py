"""Pictures of scene classes: class folders or the labels of annotation files -> checked splits, and their loaders."""

import math
import os
import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dataset.annotations import read_evaluation, read_train
from dataset.loaders import SeededDataset, TrainLoader, seeded, seeded_loader
from dataset.picture_names import SUFFIXES, has_picture_suffix, left_out
from dataset.pictures import USUAL, PictureRule, load_picture
from dataset.transforms import Transform
from utils.errors import InputError, listed
from utils.files import read_json
from utils.logs import say
from utils.prior_config import PriorConfig

SPLITS = ("train", "val", "test")

ClassPictures = dict[str, list[str]]  # the picture files of each class


class LabelledPicture(NamedTuple):
    """A picture file and the position of its class in `SceneSet.classes`."""

    image: str
    label: int


class SceneSet(NamedTuple):
    """Pictures of scene classes in three splits that share no picture; `test` may be empty.

    sources: of each split that is not empty, where it comes from, for people to read.
    """

    classes: tuple[str, ...]
    train: tuple[LabelledPicture, ...]
    val: tuple[LabelledPicture, ...]
    test: tuple[LabelledPicture, ...]
    sources: dict[str, str]


class SceneBatch(NamedTuple):
    """B training pictures, their classes and their positions in the training split."""

    images: Tensor  # uint8 [B, 3, H, W]
    labels: Tensor  # int64 [B]
    indices: Tensor  # int64 [B]


def read_scenes(config: PriorConfig) -> SceneSet:
    """The pictures of a config's class folders or annotation files, in splits. No picture is opened.

    Raises InputError for what is not as expected: no class folders, one without pictures, annotations without
    labels, a class that training lacks, a single class, a picture in two splits.
    """
    if config.class_folders:
        scenes = _class_folders(Path(config.class_folders), config)
    else:
        assert config.train_file and config.image_root  # a config without class folders is checked to have both
        scenes = _annotated(config.train_file, config.image_root, config)
    if len(scenes.classes) < 2:
        raise InputError(f"{scenes.sources['train']}: all pictures are of one class; a classifier needs two or more")
    if not scenes.val:
        raise InputError(f"val_fraction {config.val_fraction} gives no class a validation picture; give a larger one")
    for one, other in combinations(SPLITS, 2):
        shared = {p.image for p in getattr(scenes, one)} & {p.image for p in getattr(scenes, other)}
        if shared:
            raise InputError(
                f"{scenes.sources[other]} has pictures that {scenes.sources[one]} has too ({len(shared)}, first "
                f"{min(shared)}): a picture belongs to one split"
            )
    return scenes


# ---- class folders ----


def _class_folders(root: Path, config: PriorConfig) -> SceneSet:
    """A folder of class folders, as AID, UC Merced and NWPU-RESISC45 are published, or of train/, val/, test/."""
    if not root.is_dir():
        raise InputError(f"class_folders {str(root)!r} is not a folder: it must hold one folder of pictures a class")
    split_by_hand = (root / "train").is_dir() and bool(_subfolders(root / "train"))
    if split_by_hand:
        others = [folder.name for folder in _subfolders(root) if folder.name not in SPLITS]
        if others:
            raise InputError(f"{root} has train/ and beside it {others[0]!r}, which is no split: {', '.join(SPLITS)}")
        given = {split: pictures_of_classes(root / split) for split in SPLITS if (root / split).is_dir()}
        sources = {split: str(root / split) for split in given}
    else:
        given, sources = {"train": pictures_of_classes(root)}, {"train": str(root)}
    shares = {"val": config.val_fraction} if "val" not in given else {}
    if not split_by_hand and config.test_fraction:
        shares["test"] = config.test_fraction
    return _scene_set(given, sources, shares, config.split_seed)


def pictures_of_classes(folder: Path, named_by: str = "class_folders=") -> ClassPictures:
    """The picture files of every class folder, in order of name; other files and hidden ones do not count.

    named_by: how the user names the folder, for an error. Raises InputError for no class folder or an empty one.
    """
    classes = _subfolders(folder)
    if not classes:
        raise InputError(f"{folder} holds no class folders; expected are folders of pictures, CLASS/picture.jpg")
    pictures = {
        one.name: [os.fspath(file) for file in _inside(one) if has_picture_suffix(file) and file.is_file()]
        for one in classes
    }
    files = (file for one in classes for file in _inside(one) if file.is_file())
    if line := left_out(files):
        say(f"{folder}: {line}")
    empty = [one for one in classes if not pictures[one.name]]
    if empty:
        inner = f"; it holds folders: is {named_by}{empty[0]} meant?" if _subfolders(empty[0]) else ""
        suffixes = " ".join(f".{suffix}" for suffix in SUFFIXES)
        raise InputError(
            f"{len(empty)} of {len(classes)} class folders hold no picture ({suffixes}), first {empty[0]}" + inner
        )
    return pictures


def _subfolders(folder: Path) -> list[Path]:
    return [inner for inner in _inside(folder) if inner.is_dir()]


def _inside(folder: Path) -> list[Path]:
    """What a folder holds in order of name, without what is hidden."""
    try:
        return sorted(inner for inner in folder.iterdir() if not inner.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror}") from None


# ---- annotation files ----


def _annotated(train_files: Sequence[str], image_root: str, config: PriorConfig) -> SceneSet:
    """The labels of annotation files, each picture once; the classes are those of the training files."""
    files = ", ".join(train_files)
    names: dict[int, str] = {}
    label_of: dict[str, int] = {}  # of each picture
    said: list[str] = []
    for record in read_train(train_files, image_root, labels_required=True, say=said.append):
        assert record.label is not None  # as required
        names[record.label] = record.label_name or str(record.label)
        label_of[record.image] = record.label

    given, sources = {"train": _by_class(label_of, names)}, {"train": files}
    for split, file in (("val", config.val_file), ("test", config.test_file)):
        if file and (labelled := _labelled(file, image_root, names, by_name=bool(said))) is not None:
            given[split], sources[split] = _by_class(labelled, names), file
    shares = {"val": config.val_fraction} if "val" not in given else {}
    return _scene_set(given, sources, shares, config.split_seed)


def _by_class(label_of: Mapping[str, int], names: Mapping[int, str]) -> ClassPictures:
    """The pictures of each class, classes in order of their label numbers."""
    pictures: ClassPictures = {names[label]: [] for label in sorted(names)}
    for image, label in label_of.items():
        pictures[names[label]].append(image)
    return {name: sorted(images) for name, images in pictures.items()}


def _labelled(file: str, image_root: str, names: Mapping[int, str], *, by_name: bool) -> dict[str, int] | None:
    """The label of each picture of an evaluation file, checked against the training's; None without labels.

    by_name: the training files' labels were numbered anew, so that a file's own numbers say nothing.
    """
    evaluation = read_evaluation(file, image_root)
    if evaluation.labels is None:
        return None
    # The evaluation set keeps names only where every picture has one; the reader has found each record to be an object.
    named = [entry.get("label_name") for entry in read_json(file)]
    problems, labels = [], evaluation.labels
    if by_name:
        number_of = {name: label for label, name in names.items()}
        labels = [number_of.get(name, -1) for name in named]
    for number, (label, name) in enumerate(zip(labels, named, strict=True), 1):
        if label not in names:
            problems.append(f"record {number}: training has no picture of label {label} ({name or 'without a name'})")
        elif name is not None and name != names[label]:
            problems.append(f"record {number}: label {label} is {name!r}, in training {names[label]!r}")
    if problems:
        raise InputError(f"{file}: {listed(problems)}")
    return dict(zip(evaluation.images, labels, strict=True))


# ---- splits ----


def _scene_set(
    given: dict[str, ClassPictures], sources: dict[str, str], shares: dict[str, float], seed: int
) -> SceneSet:
    """The splits given, and those drawn from the training pictures: of each class these shares, rounded down."""
    classes = tuple(given["train"])
    for split, pictures in given.items():
        unknown = [name for name in pictures if name not in classes]
        if unknown:
            raise InputError(f"{sources[split]} has the class {unknown[0]!r}, of which training has no picture")
    splits = {split: {name: list(files) for name, files in pictures.items()} for split, pictures in given.items()}
    for name in classes:
        # Text seeds alike on every machine, and a class more or less leaves the others' draw alone.
        drawn = random.Random(f"{seed}/{name}").sample(given["train"][name], len(given["train"][name]))
        first = 0
        for split, share in shares.items():
            end = first + math.floor(share * len(drawn) + 1e-9)  # 0.29 * 100 falls short of 29
            splits.setdefault(split, {})[name] = sorted(drawn[first:end])
            first = end
        splits["train"][name] = sorted(drawn[first:])
    drawn_from = f"drawn from {sources['train']} by split_seed {seed}"
    return SceneSet(
        classes,
        **{
            split: tuple(
                LabelledPicture(image, classes.index(name))
                for name, files in splits.get(split, {}).items()
                for image in files
            )
            for split in SPLITS
        },
        sources=sources | dict.fromkeys(shares, drawn_from),
    )


# ---- loaders ----


class _TrainPictures(SeededDataset):
    """The seed decides the picture's augmentation."""

    def __init__(self, pictures: Sequence[LabelledPicture], transform: Transform, rule: PictureRule) -> None:
        self.pictures, self.transform, self.rule = pictures, transform, rule

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index_and_seed: tuple[int, int]) -> SceneBatch:
        index, seed = index_and_seed
        with seeded(seed):
            image = self.transform(load_picture(self.pictures[index].image, self.rule))
        return SceneBatch(image, torch.tensor(self.pictures[index].label), torch.tensor(index))


def scene_train_loader(
    pictures: Sequence[LabelledPicture], *, transform: Transform, rule: PictureRule = USUAL, **options: Any
) -> TrainLoader:
    """Loader of `SceneBatch`es of `batch_size` pictures a process; options: those of `seeded_loader`.

    Call `loader.set_epoch(e)` before each epoch.
    """
    return seeded_loader(_TrainPictures(pictures, transform, rule), **options)
