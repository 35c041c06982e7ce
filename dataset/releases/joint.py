"""Prepared parts -> one joint training set, as RET-2 and RET-3 are, without a part's test pictures in its training."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.pictures import PictureRule
from dataset.releases.annotation_files import Entries, annotation_text
from dataset.releases.listing import SPLITS
from dataset.releases.near_duplicates import RULE, Hashed, NearDuplicate, near_duplicates
from dataset.releases.output_files import check_places, partial, partial_folders, put_in_place, write_partial
from dataset.releases.perceptual_hash import hash_text
from dataset.releases.picture_check import check_pictures
from dataset.releases.published_splits import PUBLISHED
from dataset.releases.report_json import FORMAT, REPORT, OtherSet, relative_root
from dataset.releases.scene_names import common_scene
from utils.errors import InputError
from utils.files import file_checksum, read_json
from utils.output import lock, open_output, unlock

JOINT = "joint"


class Part(NamedTuple):
    """A folder that Prepare.py wrote; pictures by their files under `root`."""

    folder: Path
    dataset: str
    root: Path
    rule: PictureRule
    entries: dict[str, Entries]  # of each split, as in its annotation file
    hashes: dict[str, np.ndarray]  # of each picture: [4]


class Joint(NamedTuple):
    """A joint set as written: what a training needs to know of it."""

    image_root: Path
    rule: PictureRule
    annotations: dict[str, Path]
    report: dict[str, Any]


def make_joint(folders: Sequence[Path], output_dir: Path) -> Joint:
    """Write the joint annotation files and report.json of the parts in `folders` and print what they hold.

    Raises InputError for parts that are none or do not go together, and for a folder that something else is in.
    """
    folders = [folder.resolve() for folder in folders]
    _check_folders(folders, output_dir)
    parts = [_read_part(folder) for folder in folders]
    _check_together(parts)
    image_root = Path(os.path.commonpath([part.root for part in parts]))
    pictures = _pictures(parts, image_root)
    open_output(output_dir)
    annotations = {split: output_dir / f"{JOINT}_{split}.json" for split in SPLITS}
    report_file = output_dir / REPORT
    outputs = list(annotations.values())
    check_places([*outputs, report_file])
    lock(output_dir)
    try:
        with partial_folders([report_file]):
            left_out = _left_out(pictures, image_root, parts[0].rule)
            entries, unknown = _entries(parts, image_root, {item["image"] for item in left_out})
            report = _report(parts, image_root, output_dir, pictures, entries, left_out, unknown)
            for split, file in annotations.items():
                write_partial(file, annotation_text(entries[split]))
            report["outputs"] = {file.name: file_checksum(partial(file)) for file in outputs}
            write_partial(report_file, json.dumps(report, indent=1) + "\n")
            put_in_place([*outputs, report_file], [])
    finally:
        unlock(output_dir)
    _summarise(parts, annotations, report)
    return Joint(image_root, parts[0].rule, annotations, report)


def _check_folders(folders: Sequence[Path], output_dir: Path) -> None:
    twice = [folder for at, folder in enumerate(folders) if folder in folders[:at]]
    if twice:
        raise InputError(f"--parts names {twice[0]} twice: name each part once")
    if output_dir in folders:
        raise InputError(f"--output_dir {output_dir} is one of the parts: choose another")
    report = output_dir / REPORT
    if report.exists():
        values = read_json(report)
        arguments = values.get("arguments") if isinstance(values, dict) else None
        if not isinstance(arguments, dict) or arguments.get("dataset") != JOINT:
            raise InputError(f"--output_dir {output_dir} holds another prepared set ({REPORT}): choose another")


def _read_part(folder: Path) -> Part:
    """The part in a folder; `InputError` where it is none, is changed since, or lacks pictures."""
    report = folder / REPORT
    if not report.is_file():
        raise InputError(f"{folder} is no prepared part, it has no {REPORT}: prepare it with Prepare.py first")
    known = OtherSet(report)
    files = {split: folder / f"{Path(known.dataset).name}_{split}.json" for split in SPLITS}
    outputs = read_json(report).get("outputs")
    if not isinstance(outputs, dict):
        raise InputError(f"{report} is damaged: prepare that data set again")
    for file in files.values():
        if outputs.get(file.name) != file_checksum(file):
            raise InputError(f"{file} is not as Prepare.py left it: prepare that data set again")
    hashes = dict(zip(known.pictures.files, known.pictures.hashes[:, 0], strict=True))
    entries: dict[str, Entries] = {split: read_json(file) for split, file in files.items()}
    try:
        if unknown := {entry["image"] for split in SPLITS for entry in entries[split]} - set(hashes):
            raise InputError(f"{report} does not know the picture {min(unknown)!r:.80}: prepare that data set again")
    except (KeyError, TypeError):
        raise InputError(f"{folder}: its annotation files are damaged: prepare that data set again") from None
    root = Path(os.path.normpath(known.pictures.root))
    if missing := [file for file in hashes if not (root / file).is_file()]:
        raise InputError(
            f"{folder}: {len(missing):,} of its {len(hashes):,} pictures are not in {root} ({missing[0]!r:.80} first): "
            "put them back, or prepare that data set again"
        )
    return Part(folder, known.dataset, root, known.pictures.rule, entries, hashes)


def _check_together(parts: Sequence[Part]) -> None:
    """Raise InputError for parts that hold one file twice, are read by different rules, or lack scene names."""
    part_of: dict[Path, Part] = {}
    named: list[Part] = []
    for part in parts:
        if part.rule != parts[0].rule:
            raise InputError(
                f"{part.folder} and {parts[0].folder} read pictures by different rules: prepare them with the same "
                "--deep_pictures and --bands"
            )
        for file in part.hashes:
            if other := part_of.get(part.root / file):
                raise InputError(f"{part.folder} and {other.folder} are the same part twice: both have {file!r:.80}")
        part_of |= {part.root / file: part for file in part.hashes}
        labelled = ["label_name" in entry for split in SPLITS for entry in part.entries[split]]
        if any(labelled) and not all(labelled):
            raise InputError(f"{part.folder} names the scenes of some of its pictures only: name all or none")
        named += [part] * all(labelled)
    if named and (without := [part for part in parts if part not in named]):
        raise InputError(
            f"{without[0].folder} has no scene names and {named[0].folder} has: prepare all parts with them, or none"
        )


class _Picture(NamedTuple):
    name: str  # under the joint image folder
    split: str
    part: int
    bits: np.ndarray  # its hash: [4]


def _pictures(parts: Sequence[Part], image_root: Path) -> list[_Picture]:
    """Every picture of the parts once, part by part and split by split."""
    return [
        _Picture(_name(part, file, image_root), split, number, part.hashes[file])
        for number, part in enumerate(parts)
        for split in SPLITS
        for file in dict.fromkeys(entry["image"] for entry in part.entries[split])
    ]


def _name(part: Part, file: str, image_root: Path) -> str:
    return Path(os.path.relpath(part.root / file, image_root)).as_posix()


def _left_out(pictures: Sequence[_Picture], image_root: Path, rule: PictureRule) -> list[dict[str, Any]]:
    """The pictures that the joint files leave out, one item each with the nearest picture it looks the same as.

    Training pictures that look as a validation or test picture of any part, validation pictures that look as a test
    picture, and validation and test pictures that an earlier part's same split has.
    """
    trained = [picture for picture in pictures if picture.split == "train"]
    held_out = [picture for picture in pictures if picture.split != "train"]
    names = [picture.name for picture in held_out]
    checks = check_pictures(image_root, names, rule)
    if damaged := [name for name in names if not len(checks[name].hashes)]:
        raise InputError(
            f"{len(damaged):,} pictures cannot be read ({image_root / damaged[0]} first): repair them, or prepare "
            "that part again"
        )
    held = Hashed(names, image_root, np.stack([checks[name].hashes for name in names]), rule)
    known = Hashed([p.name for p in trained], image_root, np.stack([p.bits for p in trained])[:, None], rule)
    items: dict[str, dict[str, Any]] = {}

    def leave_out(gone: _Picture, kept: _Picture, pair: NearDuplicate) -> None:
        compared = {"distance": pair.distance, "turn": pair.turn, "blocks": pair.blocks}
        split_and_twin = {"split": gone.split, "looks_as": kept.name, "of_split": kept.split}
        items.setdefault(gone.name, {"image": gone.name, **split_and_twin, **compared})

    for pair in near_duplicates(held, known):
        leave_out(trained[pair.second], held_out[pair.first], pair)
    for pair in near_duplicates(held):
        one, two = held_out[pair.first], held_out[pair.second]
        if one.split != two.split:
            gone, kept = (one, two) if one.split == "val" else (two, one)
            leave_out(gone, kept, pair)
        elif one.part != two.part:  # in order of the parts
            leave_out(two, one, pair)
    return sorted(items.values(), key=lambda item: (SPLITS.index(item["split"]), item["image"]))


def _entries(parts: Sequence[Part], image_root: Path, left_out: set[str]) -> tuple[dict[str, Entries], list[list[str]]]:
    """The records of the joint files, and the scene names of each part that the table does not have."""
    entries: dict[str, Entries] = {split: [] for split in SPLITS}
    unknown: list[list[str]] = []
    ids: dict[str, int] = {}
    for part in parts:
        strange: set[str] = set()
        for split in SPLITS:
            for entry in part.entries[split]:
                name = _name(part, entry["image"], image_root)
                if name in left_out:
                    continue
                record: dict[str, Any] = {"caption": entry["caption"], "image": name}
                if split == "train":
                    record["image_id"] = ids.setdefault(name, len(ids))
                if "label_name" in entry:
                    scene = common_scene(entry["label_name"])
                    strange |= {entry["label_name"]} if scene is None else set()
                    record["label_name"] = scene or entry["label_name"]
                entries[split].append(record)
        unknown.append(sorted(strange))
    if empty := [split for split in SPLITS if not entries[split]]:
        raise InputError(f"no picture is left for {JOINT}_{empty[0]}.json: every one looks as one held out does")
    trained = {record.get("label_name") for record in entries["train"]}
    scenes = {record["label_name"] for split in SPLITS for record in entries[split] if "label_name" in record}
    number = {scene: at for at, scene in enumerate(sorted(scenes, key=lambda scene: (scene not in trained, scene)))}
    for split in SPLITS:
        for record in entries[split]:
            if "label_name" in record:
                record["label"] = number[record["label_name"]]
    return entries, unknown


def _report(
    parts: Sequence[Part],
    image_root: Path,
    output_dir: Path,
    pictures: Sequence[_Picture],
    entries: Mapping[str, Entries],
    left_out: list[dict[str, Any]],
    unknown: list[list[str]],
) -> dict[str, Any]:
    """The plain values of report.json, in the form that other reports have where they say the same."""
    kept = {split: dict.fromkeys(entry["image"] for entry in entries[split]) for split in SPLITS}
    bits = {picture.name: hash_text(picture.bits) for picture in pictures}
    parts_of: dict[str, set[int]] = {}
    for picture in pictures:
        if picture.name in kept["train"]:
            parts_of.setdefault(bits[picture.name], set()).add(picture.part)
    rule = parts[0].rule
    as_read = {} if rule == PictureRule() else {"deep_pictures": rule.deep, "bands": rule.bands and list(rule.bands)}
    return {
        "format": FORMAT,
        "arguments": {"dataset": JOINT, "parts": [relative_root(p.folder, output_dir) for p in parts], **as_read},
        "image_root": relative_root(image_root, output_dir),
        "counts": {
            split: {
                "pictures": len(kept[split]),
                "captions": sum(1 if split == "train" else len(entry["caption"]) for entry in entries[split]),
                "labels": len({entry.get("label_name") for entry in entries[split]} - {None}),
            }
            for split in SPLITS
        },
        "outputs": {},
        "left_out": {"rule": RULE, "items": left_out},
        "trained_in_two_parts": sum(len(found) > 1 for found in parts_of.values()),
        "scenes_not_in_the_table": unknown,
        "pictures": {split: {name: bits[name] for name in sorted(kept[split])} for split in SPLITS},
    }


def _summarise(parts: Sequence[Part], annotations: Mapping[str, Path], report: Mapping[str, Any]) -> None:
    for part, strange in zip(parts, report["scenes_not_in_the_table"], strict=True):
        own = "/".join(f"{len({entry['image'] for entry in part.entries[split]}):,}" for split in SPLITS)
        published = PUBLISHED.get(part.dataset)
        beside = "/".join(f"{count:,}" for count in published.pictures.values()) if published else "not known here"
        print(f"part {part.folder}: {own} train/val/test pictures; published split of {part.dataset}: {beside}")
        if strange:
            print(f"warning: {len(strange)} scene names are not in the table and kept: {', '.join(strange[:8])}")
    for split, file in annotations.items():
        print(f"{file}: {', '.join(f'{count} {name}' for name, count in report['counts'][split].items())}")
        gone = [item for item in report["left_out"]["items"] if item["split"] == split]
        if gone:
            first = gone[0]
            print(
                f"  left out: {len(gone)} near-duplicates "
                f"({first['image']!r} looks as {first['looks_as']!r} of {first['of_split']} first)"
            )
    print("counts published for a joint set: none known here")
    if report["trained_in_two_parts"]:
        print(f"kept: {report['trained_in_two_parts']} training pictures that two parts share, by equal hashes")
    print(f"all that was left out by name: {annotations['train'].with_name(REPORT)}")
