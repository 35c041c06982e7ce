"""Published releases -> annotation files: `python Prepare.py --dataset rsicd --release DIR --output_dir DIR`."""

import argparse
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.releases import RELEASES, SPLITS, ReleasedPicture
from utils.errors import InputError, run_cli

Entries = list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Write the annotation files of one release, and print what they hold and how to train on them."""
    args = parse(arguments)
    release = RELEASES[args.dataset]
    released = release.read(Path(args.release), args.labels)
    annotations = annotation_entries(released.pictures)
    files = {split: Path(args.output_dir).resolve() / f"{args.dataset}_{split}.json" for split in SPLITS}
    write_all({files[split]: annotations[split] for split in SPLITS})

    for split in SPLITS:
        pictures = [picture for picture in released.pictures if picture.split == split]
        captions = sum(len(picture.captions) for picture in pictures)
        labels = len({picture.label_name for picture in pictures})
        print(f"{files[split]}: {len(pictures)} pictures, {captions} captions, {labels} labels")
    if released.captions_left_out:
        print(f"left out: {released.captions_left_out} captions without a word")
    print("train on them with:")
    print(training_command(release.task, released.image_root.resolve(), files))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, choices=RELEASES)
    parser.add_argument("--release", required=True, metavar="DIR", help="the unpacked release")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="where the annotation files go")
    parser.add_argument(
        "--labels",
        default="name",
        help="name: the file name before _ (as released; the default); scene: the release's scene classes",
    )
    return parser.parse_args(arguments)


def annotation_entries(pictures: Sequence[ReleasedPicture]) -> dict[str, Entries]:
    """The records of each split's annotation file: one a caption for train, one a picture for val and test.

    Labels are numbered by name, those of the train split first; captions stay raw (reading cleans them).
    """
    train = [picture for picture in pictures if picture.split == "train"]
    train_labels = {picture.label_name for picture in train}
    names = sorted({picture.label_name for picture in pictures}, key=lambda name: (name not in train_labels, name))
    number = {name: label for label, name in enumerate(names)}

    entries: dict[str, Entries] = {
        "train": [
            {
                "caption": caption,
                "image": picture.file,
                "image_id": image_id,
                "label": number[picture.label_name],
                "label_name": picture.label_name,
            }
            for image_id, picture in enumerate(train)
            for caption in picture.captions
        ]
    }
    for split in SPLITS[1:]:
        entries[split] = [
            {
                "image": picture.file,
                "caption": list(picture.captions),
                "label": number[picture.label_name],
                "label_name": picture.label_name,
            }
            for picture in pictures
            if picture.split == split
        ]
    return entries


def write_all(contents: dict[Path, Entries]) -> None:
    """Write every file beside its place, then rename them all: a crash leaves the old ones."""
    beside = {file: file.with_name(f".{file.name}.{os.getpid()}") for file in contents}
    try:
        for file, entries in contents.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = ",\n".join(json.dumps(entry) for entry in entries)
            beside[file].write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        for file, written in beside.items():
            os.replace(written, file)
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from None
    finally:
        for written in beside.values():
            if written.exists():
                written.unlink()


def training_command(task: str, image_root: Path, files: dict[str, Path]) -> str:
    """The one shell line that trains on the files."""
    overrides = [
        f"image_root={_yaml(image_root)}",
        f"train_file=[{_yaml(files['train'])}]",
        f"val_file={_yaml(files['val'])}",
        f"test_file={_yaml(files['test'])}",
    ]
    command = ["python", "run.py", "--task", task]
    for override in overrides:
        command += ["--override", override]
    return shlex.join(command)


def _yaml(path: Path) -> str:
    """The path as a YAML value: quoted unless it holds plain characters only."""
    return str(path) if re.fullmatch(r"[\w./-]+", str(path), re.ASCII) else json.dumps(str(path))


if __name__ == "__main__":
    run_cli(main)
