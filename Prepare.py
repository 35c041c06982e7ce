"""Published releases -> annotation files: `python Prepare.py --dataset rsicd --release DIR --output_dir DIR`."""

import argparse
import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.pictures import USUAL, PictureRule
from dataset.releases.annotation_files import annotation_entries, annotation_text
from dataset.releases.archives import release_folder
from dataset.releases.defects import KINDS, Defects, check_classes, readable, with_captions, with_files
from dataset.releases.folder_set import SEED, read_folder_set, unlisted
from dataset.releases.listing import SPLITS, ListedPicture, Listing
from dataset.releases.other_layouts import LAYOUTS
from dataset.releases.output_files import check_places, partial, partial_folders, put_in_place, write_partial
from dataset.releases.picture_check import check_pictures
from dataset.releases.published_releases import RELEASES
from dataset.releases.published_splits import PUBLISHED, check_published, published_split
from dataset.releases.report_json import (
    REPORT,
    OtherSet,
    input_checksum,
    is_done,
    near_duplicate_pairs,
    relative_root,
    report_values,
)
from dataset.releases.report_page import HTML, render
from dataset.releases.shard_writer import check_suffixes, known_shards, write_shards
from utils.arguments import OneLineParser, named_path
from utils.errors import InputError, run_cli
from utils.files import file_checksum
from utils.output import open_output
from utils.override_text import override_of
from utils.picture_rule import impossible_rule

FOLDER = "folder"
JOINT = "joint"  # of prepared parts
HUB = "parquet"  # as the Hugging Face Hub keeps data sets
SHARDS = "shards"  # the folder for them
TASKS = {"rsitmd": "itr_rsitmd", JOINT: "itr_ret2_clip"}  # of run.py
DEFAULT_TASK = "itr_rsicd_lite"


def main(arguments: list[str] | None = None) -> int:
    """Write the annotation files and the report of one release, and print what they hold and how to train on them."""
    args = parse(arguments)
    output_dir = args.output_dir.resolve()
    if args.dataset == JOINT:
        from dataset.releases.joint import make_joint

        joint = make_joint(args.parts, output_dir)
        args.deep_pictures, args.bands = joint.rule
        print("train on them with:")
        print(training_command(args, joint.image_root, joint.annotations["train"], joint.annotations, joint.report))
        return 0
    rule = PictureRule(args.deep_pictures, args.bands)
    other = OtherSet(args.check_against) if args.check_against else None
    vocabulary = None
    if args.vocabulary:
        from dataset.vocabulary import Vocabulary  # brings transformers, which takes seconds

        vocabulary = Vocabulary(args.vocabulary)
    open_output(output_dir)
    annotations = {split: output_dir / f"{args.dataset}_{split}.json" for split in SPLITS}
    page, report_file, index = output_dir / HTML, output_dir / REPORT, output_dir / SHARDS / annotations["train"].name
    outputs = [*annotations.values(), page]
    check_places([*outputs, report_file, index])
    old_shards = known_shards(index)
    with release_folder(args.release, output_dir) as folder, partial_folders([page, index]):
        listing = read_listing(args, folder)
        made_with = settings(args, other) | ({"vocabulary": vocabulary.checksum} if vocabulary else {})
        defects = Defects()
        pictures = with_files(listing.pictures, defects)
        check_splits(args, listing.pictures, pictures)
        if args.shards:
            check_suffixes(picture.file for picture in pictures if picture.split == "train")
        files = [picture.file for picture in pictures]
        if is_done(output_dir, made_with, listing, files):
            print(f"{output_dir} holds this release already, prepared with the same arguments: nothing to do")
            return 0

        checks = check_pictures(listing.image_root, files, rule)
        pictures = with_captions(readable(pictures, checks, defects), defects, vocabulary)
        check_splits(args, listing.pictures, pictures)
        check_classes(pictures, defects)
        pairs = near_duplicate_pairs(listing.image_root, pictures, checks, other, rule)
        checksum = input_checksum(listing.sources, {file: check.checksum for file, check in checks.items()})
        root = relative_root(listing.image_root, output_dir)
        report = report_values(made_with, root, checksum, pictures, checks, defects, pairs)

        entries = annotation_entries(pictures)
        for split, file in annotations.items():
            write_partial(file, annotation_text(entries[split]))
        write_partial(page, render(report, defects, pictures, listing.image_root, other, rule))
        train_file, shards = annotations["train"], []
        if args.shards:
            pattern = write_shards(entries["train"], listing.image_root, partial(index).parent, index.stem)
            train_file = index.with_name(Path(pattern).name)
            shards = [index.with_name(file.name) for file in reversed(known_shards(partial(index)))]  # the index last
        report["outputs"] = {
            file.relative_to(output_dir).as_posix(): file_checksum(partial(file)) for file in (*outputs, *shards)
        }
        write_partial(report_file, json.dumps(report, indent=1) + "\n")
        put_in_place([*shards, *outputs, report_file], old_shards)

    if old_shards and not args.shards:
        print(f"removed the shards of an earlier run from {index.parent}: the training pictures are written anew")
    summarise(annotations, report)
    print(f"all of it by name: {page}, {report_file}")
    print("train on them with:")
    print(training_command(args, listing.image_root.resolve(), train_file, annotations, report))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; `InputError` for arguments that contradict each other."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add("--dataset", required=True, choices=[*RELEASES, *LAYOUTS, HUB, FOLDER, JOINT], help="a release, or a layout")
    add(
        "--release",
        type=named_path,
        metavar="DIR",
        help="the release: a folder, or a zip or tar archive of it",
    )
    add("--parts", type=named_path, nargs="+", metavar="DIR", help=f"for --dataset {JOINT}: prepared folders to join")
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
    add(
        "--vocabulary",
        type=named_path,
        metavar="DIR",
        help="the text encoder's folder: count the words that its vocabulary lacks, not characters outside ASCII",
    )
    add(
        "--columns",
        type=named_columns,
        metavar="image=NAME,caption=NAME",
        help=f"what the table of a {FOLDER} calls the columns image, caption, label and split",
    )
    add(
        "--deep_pictures",
        default=USUAL.deep,
        metavar="RULE",
        help="read pictures of more than 8 bits a channel: minmax, 'percentile 2-98' or 'divide 40' (default: refuse)",
    )
    add("--bands", type=named_bands, metavar="R,G,B", help="the bands of pictures that have many, counted from 1")
    add("--shards", action="store_true", help=f"also write the training pictures as tar shards, to {SHARDS}/")
    add("--seed", type=int, help=f"of the split drawn for a {FOLDER} whose table has none (default: {SEED})")
    args = parser.parse_args(arguments)
    given = [name for name, value in vars(args).items() if value != parser.get_default(name)]
    if args.dataset == JOINT:
        if others := set(given) - {"dataset", "parts", "output_dir"}:
            raise InputError(f"--dataset {JOINT} takes --parts and --output_dir alone: leave --{min(others)} out")
        if len(args.parts or ()) < 2:
            raise InputError(f"--dataset {JOINT} joins two prepared folders or more: name them with --parts")
        return args
    if args.parts or args.release is None:
        wrong = f"--parts is for --dataset {JOINT}: " if args.parts else ""
        raise InputError(f"{wrong}--dataset {args.dataset} is prepared from --release DIR")
    if problems := impossible_rule(args.deep_pictures, args.bands):
        raise InputError(problems[0].replace("'deep_pictures'", "--deep_pictures").replace("'bands'", "--bands"))
    if args.dataset not in RELEASES and args.labels:
        raise InputError(f"--dataset {args.dataset} has the labels of its table or file: leave --labels out")
    if args.dataset not in RELEASES and args.split != "release":
        raise InputError(f"--dataset {args.dataset} has no published split: leave --split out")
    if args.dataset != FOLDER and args.columns:
        raise InputError(f"--columns is for --dataset {FOLDER}: a release has no table")
    if args.dataset != FOLDER and args.seed is not None:
        raise InputError(f"--seed is for --dataset {FOLDER}: a release has its own split")
    return args


def named_columns(text: str) -> dict[str, str]:
    """An argument's type: `image=filename,caption=text` -> the table's name of each column."""
    pairs = dict(pair.partition("=")[::2] for pair in text.split(","))
    if not all(pairs.values()) or not set(pairs) <= {"image", "caption", "label", "split"}:
        raise argparse.ArgumentTypeError(
            f"{text!r:.80} is not of the form image=NAME,caption=NAME,label=NAME,split=NAME"
        )
    return pairs


def named_bands(text: str) -> tuple[int, ...]:
    """An argument's type: `4,3,2` -> the numbers of three bands."""
    if not all(re.fullmatch(r"[1-9][0-9]{0,2}", band) for band in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not of the form 3,2,1, with bands counted from 1")
    return tuple(map(int, text.split(",")))


def read_listing(args: argparse.Namespace, folder: Path) -> Listing:
    """The release's pictures, in the split asked for."""
    try:
        if args.dataset == FOLDER:
            listing = read_folder_set(folder, args.seed, args.columns)
            if line := unlisted(listing):
                print(f"{listing.image_root}: {line}")
            return listing
        if args.dataset == HUB:
            from dataset.releases.parquet import read_parquet  # brings pyarrow, for this layout alone

            return read_parquet(folder, args.output_dir.resolve())
        if args.dataset in LAYOUTS:
            return LAYOUTS[args.dataset](folder)
        listing = RELEASES[args.dataset].read(folder, args.labels)
    except OSError as error:  # a folder that may not be entered
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return published_split(args.dataset, listing) if args.split == "published" else listing


def settings(args: argparse.Namespace, other: OtherSet | None) -> dict[str, Any]:
    """The arguments that the output depends on, the release itself apart."""
    labels = RELEASES[args.dataset].labels_chosen(args.labels) if args.dataset in RELEASES else None
    return {
        "dataset": args.dataset,
        "split": args.split,
        "labels": labels,
        "seed": args.seed,
        "shards": args.shards,
        "check_against": other.checksum if other else None,
        **({"columns": args.columns} if args.columns else {}),
        **rule_values(args),
    }


def rule_values(args: argparse.Namespace) -> dict[str, Any]:
    """The config's keys for pictures of 16 bits and of many bands, where they differ from the defaults."""
    values: dict[str, Any] = {} if args.deep_pictures == USUAL.deep else {"deep_pictures": args.deep_pictures}
    return values | ({"bands": list(args.bands)} if args.bands else {})


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
            f"({lost[0]!r:.80} first): repair them{redraw}"
        )
    if empty:
        hint = ": give --split published" if args.dataset in PUBLISHED else ""
        raise InputError(f"{args.release} has no picture of the split {' and '.join(empty)}{hint}")


def summarise(annotations: dict[str, Path], report: dict[str, Any]) -> None:
    """Print what was written and, a line a kind, what is wrong in it."""
    for split, file in annotations.items():
        print(f"{file}: {', '.join(f'{count} {name}' for name, count in report['counts'][split].items())}")
    for kind, values in report["defects"].items():
        if values["count"]:
            first = values["items"][0]
            warning = "warning: left out: " if KINDS[kind].left_out else ""
            print(f"{warning}{values['title']}: {values['count']} ({first.get('label') or first['image']!r} first)")
    for kind in ("across_splits", "within_a_split", "across_sets"):
        if pairs := report["near_duplicates"][kind]:
            one, two = pairs[0]["images"]
            print(
                f"warning: near-duplicate pictures {kind.replace('_', ' ')}: {by_splits(kind, pairs)} "
                f"({one!r} and {two!r} first)"
            )


def by_splits(kind: str, pairs: Sequence[dict[str, Any]]) -> str:
    """How many pairs there are of which splits: `2 train and test, 1 val and test`."""
    form = "{} here, {} there" if kind == "across_sets" else "{} and {}"
    splits = (p["splits"] if kind == "across_sets" else sorted(p["splits"], key=SPLITS.index) for p in pairs)
    return ", ".join(f"{count} {named}" for named, count in Counter(form.format(*pair) for pair in splits).items())


def training_command(
    args: argparse.Namespace, image_root: Path, train_file: Path, annotations: dict[str, Path], report: dict[str, Any]
) -> str:
    """The one shell line that trains on the files."""
    values: dict[str, Any] = {
        "image_root": str(image_root),
        "train_file": [str(train_file)],
        "val_file": str(annotations["val"]),
        "test_file": str(annotations["test"]),
        **rule_values(args),
    }
    if not report["counts"]["train"]["labels"]:
        values["use_affil_loss"] = False
    command = ["python", "run.py", "--task", TASKS.get(args.dataset, DEFAULT_TASK)]
    for key, value in values.items():
        command += ["--override", override_of(key, value)]
    return shlex.join(command)


if __name__ == "__main__":
    run_cli(main)
