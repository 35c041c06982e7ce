"""Published releases -> annotation files: `python Prepare.py --dataset rsicd --release DIR --output_dir DIR`."""

import argparse
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataset.releases.annotation_files import annotation_entries, annotation_texts, check_places, write_all
from dataset.releases.archives import release_folder
from dataset.releases.defects import KINDS, Defects, check_classes, readable, with_captions, with_files
from dataset.releases.folder_set import SEED, read_folder_set
from dataset.releases.listings import RELEASES, SPLITS, ListedPicture, Listing
from dataset.releases.near_duplicates import near_duplicates
from dataset.releases.picture_check import check_pictures, hashed
from dataset.releases.prepared import (
    REPORT,
    OtherSet,
    input_checksum,
    is_done,
    output_checksum,
    plain_pairs,
    relative_root,
    report_values,
    split_counts,
)
from dataset.releases.published_splits import check_published, published_split
from dataset.releases.report import HTML, render
from dataset.releases.shard_writer import check_suffixes, known_shards, write_shards
from utils.arguments import OneLineParser, named_path
from utils.errors import InputError, run_cli
from utils.files import file_checksum
from utils.output import open_output

FOLDER = "folder"
SHARDS = "shards"  # the folder for them
PARTIAL = ".partial"  # the folder in it that they are written to first
TASKS = {"rsitmd": "itr_rsitmd"}  # of run.py
DEFAULT_TASK = "itr_rsicd_lite"


def main(arguments: list[str] | None = None) -> int:
    """Write the annotation files and the report of one release, and print what they hold and how to train on them."""
    args = parse(arguments)
    output_dir = args.output_dir.resolve()
    other = OtherSet(args.check_against) if args.check_against else None
    open_output(output_dir)
    train_file, index = output_dir / f"{args.dataset}_train.json", output_dir / SHARDS / f"{args.dataset}_train.json"
    names = (*(f"{args.dataset}_{split}.json" for split in SPLITS), HTML, REPORT)
    check_places([*(output_dir / name for name in names), index])
    old_shards = known_shards(index)
    with release_folder(args.release, output_dir) as folder, set_aside(index.parent / PARTIAL) as beside:
        listing = read_listing(args, folder)
        made_with = settings(args, listing, other)
        defects = Defects()
        pictures = with_files(listing.pictures, defects)
        check_splits(args, listing.pictures, pictures)
        if args.shards:
            check_suffixes(picture.file for picture in pictures if picture.split == "train")
        files = [picture.file for picture in pictures]
        if is_done(output_dir, made_with, listing, files):
            print(f"{output_dir} holds this release already, prepared with the same arguments: nothing to do")
            return 0

        checks = check_pictures(listing.image_root, files)
        pictures = with_captions(readable(pictures, checks, defects), defects)
        check_splits(args, listing.pictures, pictures)
        check_classes(pictures, defects)
        found = hashed(listing.image_root, [picture.file for picture in pictures], checks)
        shared = near_duplicates(found, other.pictures) if other else []
        pairs = plain_pairs(pictures, near_duplicates(found), shared, other)

        checksum = input_checksum(listing.sources, {file: check.checksum for file, check in checks.items()})
        root = relative_root(listing.image_root, output_dir)
        report = report_values(made_with, root, checksum, pictures, checks, defects, pairs)
        texts = annotation_texts(args.dataset, pictures)
        texts[HTML] = render(report, defects, pictures, listing.image_root, other)
        report["outputs"] = {name: output_checksum(text) for name, text in texts.items()}
        new_shards: dict[Path, Path] = {}  # place -> where it is; the index, first among the known, comes last
        if args.shards:
            entries = annotation_entries(pictures)["train"]
            pattern = Path(write_shards(entries, listing.image_root, beside, index.stem))
            train_file = index.with_name(pattern.name)
            new_shards = {index.with_name(file.name): file for file in reversed(known_shards(beside / index.name))}
            report["outputs"] |= {f"{SHARDS}/{file.name}": file_checksum(file) for file in new_shards.values()}
        texts[REPORT] = json.dumps(report, indent=1) + "\n"
        write_all({output_dir / name: text for name, text in texts.items()}, new_shards, old_shards)

    if old_shards and not args.shards:
        print(f"removed the shards of an earlier run from {index.parent}: the training pictures are written anew")
    tell(args.dataset, output_dir, pictures, defects, pairs)
    print("train on them with:")
    print(training_command(args.dataset, listing.image_root.resolve(), train_file, output_dir, pictures))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; `InputError` for arguments that contradict each other."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add("--dataset", required=True, choices=[*RELEASES, FOLDER], help="a published release, or a folder of one's own")
    add(
        "--release",
        type=named_path,
        required=True,
        metavar="DIR",
        help="the release: a folder, or a zip or tar archive of it",
    )
    add(
        "--output_dir",
        type=named_path,
        required=True,
        metavar="DIR",
        help="where the annotation files and the report go",
    )
    add(
        "--split",
        default="release",
        choices=("release", "published"),
        help="release: the release's own three (the default); published: those of the published tables",
    )
    add(
        "--labels",
        choices=("name", "scene"),
        help="name: from the picture's name, as released (the default); scene: the release's scene classes",
    )
    add(
        "--check_against", type=named_path, metavar="FILE", help="another data set's report.json: are pictures in both?"
    )
    add("--shards", action="store_true", help=f"also write the training pictures as tar shards, to {SHARDS}/ there")
    add("--seed", type=int, help=f"of the split drawn for a {FOLDER} whose table has none (default: {SEED})")
    args = parser.parse_args(arguments)
    if args.dataset == FOLDER and args.labels:
        raise InputError(f"--dataset {FOLDER} has the labels of its table: leave --labels out")
    if args.dataset == FOLDER and args.split != "release":
        raise InputError(f"--dataset {FOLDER} has no published split: leave --split out")
    if args.dataset != FOLDER and args.seed is not None:
        raise InputError(f"--seed is for --dataset {FOLDER}: a release has its own split")
    return args


def read_listing(args: argparse.Namespace, folder: Path) -> Listing:
    """The release's pictures, in the split asked for."""
    try:
        if args.dataset == FOLDER:
            return read_folder_set(folder, args.seed)
        listing = RELEASES[args.dataset].read(folder, args.labels)
    except OSError as error:  # a folder that may not be entered
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return published_split(args.dataset, listing) if args.split == "published" else listing


def settings(args: argparse.Namespace, listing: Listing, other: OtherSet | None) -> dict[str, Any]:
    """The arguments that the output depends on, the release itself apart."""
    labels = None if args.dataset == FOLDER else RELEASES[args.dataset].labels_chosen(args.labels)
    return {
        "dataset": args.dataset,
        "split": args.split,
        "labels": labels,
        "seed": args.seed,
        "shards": args.shards,
        "check_against": other.checksum if other else None,
    }


@contextmanager
def set_aside(folder: Path) -> Iterator[Path]:
    """A folder to write to, gone afterwards, as is what a run that was killed left there."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_splits(args: argparse.Namespace, listed: Sequence[ListedPicture], pictures: Sequence[ListedPicture]) -> None:
    """Raise InputError where a split has none of the `pictures` left, and too few for the published split."""
    if args.split == "published":
        check_published(args.dataset, pictures)
    empty = [split for split in SPLITS if split not in {picture.split for picture in pictures}]
    lost = [picture.name for picture in listed if picture.split in empty]
    if lost:
        redraw = ", or draw another split with --seed" if args.dataset == FOLDER else ""
        raise InputError(
            f"{args.release}: no picture of the split {' and '.join(empty)} is there, readable and with a caption "
            f"({lost[0]!r:.80} first): mend them{redraw}"
        )
    if empty:
        hint = ": give --split published" if args.dataset in ("rsicd", "rsitmd") else ""
        raise InputError(f"{args.release} has no picture of the split {' and '.join(empty)}{hint}")


def tell(
    dataset: str,
    output_dir: Path,
    pictures: Sequence[ListedPicture],
    defects: Defects,
    pairs: dict[str, list[dict[str, Any]]],
) -> None:
    """Print what was written and, a line a kind, what is wrong in it."""
    for split in SPLITS:
        counts = ", ".join(f"{count} {name}" for name, count in split_counts(pictures, split).items())
        print(f"{output_dir / f'{dataset}_{split}.json'}: {counts}")
    for kind, (title, _, left_out) in KINDS.items():
        if count := defects.count(kind):
            first = defects[kind][0]
            print(f"{'warning: left out: ' if left_out else ''}{title}: {count} ({first.label or first.image!r} first)")
    for name, found in pairs.items():
        if found:
            one, two = found[0]["images"]
            print(
                f"warning: near-duplicate pictures {name.replace('_', ' ')}: {by_splits(name, found)} "
                f"({one!r} and {two!r} first)"
            )
    print(f"all of it by name: {output_dir / HTML}, {output_dir / REPORT}")


def by_splits(name: str, pairs: Sequence[dict[str, Any]]) -> str:
    """How many pairs there are of which splits: `2 train and test, 1 val and test`."""
    form = "{} here, {} there" if name == "across_sets" else "{} and {}"
    kinds = (p["splits"] if name == "across_sets" else sorted(p["splits"], key=SPLITS.index) for p in pairs)
    return ", ".join(f"{count} {kind}" for kind, count in Counter(form.format(*splits) for splits in kinds).items())


def training_command(
    dataset: str, image_root: Path, train_file: Path, output_dir: Path, pictures: Sequence[ListedPicture]
) -> str:
    """The one shell line that trains on the files."""
    overrides = [
        f"image_root={_yaml(image_root)}",
        f"train_file=[{_yaml(train_file)}]",
        f"val_file={_yaml(output_dir / f'{dataset}_val.json')}",
        f"test_file={_yaml(output_dir / f'{dataset}_test.json')}",
    ]
    if pictures[0].label_name is None:
        overrides.append("use_affil_loss=False")
    command = ["python", "run.py", "--task", TASKS.get(dataset, DEFAULT_TASK)]
    for override in overrides:
        command += ["--override", override]
    return shlex.join(command)


def _yaml(path: Path) -> str:
    """The path as a YAML value: quoted unless it holds plain characters only."""
    return str(path) if re.fullmatch(r"[\w./-]+", str(path), re.ASCII) else json.dumps(str(path))


if __name__ == "__main__":
    run_cli(main)
