"""report.json: what a preparation was made from and gave, so that a second run and another data set can rely on it."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.pictures import leads_outside
from dataset.releases.defects import KINDS, Defects, Finding
from dataset.releases.listings import SPLITS, ListedPicture, Listing
from dataset.releases.near_duplicates import RULE, Hashed, NearDuplicate
from dataset.releases.perceptual_hash import hash_from_text, hash_text
from dataset.releases.picture_check import PictureCheck
from utils.errors import InputError
from utils.files import file_checksum, read_json

FORMAT = 1  # raised when the same input begins to give other output
REPORT = "report.json"
_PAIRS = ("across_splits", "within_a_split", "across_sets")


class OtherSet:
    """Another data set's prepared pictures, to check one's own against."""

    def __init__(self, file: Path) -> None:
        """Read a report.json, or the pictures of one annotation file that has its report.json beside it.

        Raises InputError for anything else.
        """
        values, report, only = read_json(file), file, None
        self.checksum = file_checksum(file)
        if isinstance(values, list):
            only = {entry["image"] for entry in values if isinstance(entry, dict) and type(entry.get("image")) is str}
            report = file.with_name(REPORT)
            if not report.is_file():
                raise InputError(f"{file} has no {REPORT} beside it: prepare that data set again")
            values = read_json(report)
            self.checksum += file_checksum(report)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise InputError(f"{report} is not a report of Prepare.py, or of another version: prepare it again")
        try:
            self.dataset = str(values["arguments"]["dataset"])
            root = report.parent / values["image_root"]
            pictures = [
                (image, split, hash_from_text(text))
                for split in SPLITS
                for image, text in values["pictures"][split].items()
                if (only is None or image in only) and not leads_outside(image)
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(f"{report} is damaged: prepare that data set again") from None
        if not pictures:
            raise InputError(f"{report} knows no picture of {file}: prepare that data set again")
        files, self.splits, hashes = zip(*pictures, strict=True)
        self.pictures = Hashed(files, root, np.stack(hashes)[:, None])


def input_checksum(sources: Sequence[Path], pictures: Mapping[str, str]) -> str:
    """One SHA-256 over the files a release was read from and the pictures' own, by file under the image folder."""
    total = hashlib.sha256()
    for source in sources:
        total.update(f"{source.name} {file_checksum(source)}\n".encode(errors="surrogateescape"))
    for file in sorted(pictures):
        total.update(f"{file} {pictures[file]}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def output_checksum(text: str) -> str:
    """SHA-256 of a text as it is written."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_done(output_dir: Path, arguments: dict[str, Any], listing: Listing, files: Sequence[str]) -> bool:
    """Whether the report in `output_dir` stands for these arguments and this input, and its output is all there."""
    try:
        report = json.loads((output_dir / REPORT).read_text(encoding="utf-8"))
        made_from = report["format"], report["arguments"], report["image_root"]
        if made_from != (FORMAT, arguments, relative_root(listing.image_root, output_dir)):
            return False
        if any(file_checksum(output_dir / name) != checksum for name, checksum in report["outputs"].items()):
            return False
        checksums = {file: file_checksum(listing.image_root / file) for file in files}
        return report["input_checksum"] == input_checksum(listing.sources, checksums)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
        return False


def relative_root(image_root: Path, output_dir: Path) -> str:
    """The folder of the pictures as seen from that of the report: the same wherever the two lie together."""
    return Path(os.path.relpath(image_root.resolve(), output_dir.resolve())).as_posix()


def report_values(
    arguments: dict[str, Any],
    image_root: str,
    checksum: str,
    pictures: Sequence[ListedPicture],
    checks: Mapping[str, PictureCheck],
    defects: Defects,
    near: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """The plain values of report.json; the checksums of the outputs are for the caller to add."""
    return {
        "format": FORMAT,
        "arguments": arguments,
        "image_root": image_root,
        "counts": {split: split_counts(pictures, split) for split in SPLITS},
        "input_checksum": checksum,
        "outputs": {},
        "defects": {
            kind: {
                "title": KINDS[kind].title,
                "rule": KINDS[kind].rule,
                "count": defects.count(kind),
                "pictures": len({finding.image for finding in defects[kind]}),
                "items": [_plain(finding) for finding in defects[kind]],
            }
            for kind in KINDS
        },
        "near_duplicates": {"rule": RULE, **near},
        "pictures": {
            split: {
                file: hash_text(checks[file].hashes[0]) for file in sorted(p.file for p in pictures if p.split == split)
            }
            for split in SPLITS
        },
    }


def split_counts(pictures: Sequence[ListedPicture], split: str) -> dict[str, int]:
    """How many pictures, captions and labels a split has."""
    of_split = [picture for picture in pictures if picture.split == split]
    labels = {picture.label_name for picture in of_split} - {None}
    return {
        "pictures": len(of_split),
        "captions": sum(len(picture.captions) for picture in of_split),
        "labels": len(labels),
    }


def plain_pairs(
    pictures: Sequence[ListedPicture],
    among: Sequence[NearDuplicate],
    shared: Sequence[NearDuplicate],
    other: OtherSet | None,
) -> dict[str, list[dict[str, Any]]]:
    """The near-duplicates `among` a set's pictures and those `shared` with another set, as report.json has them."""
    pairs: dict[str, list[dict[str, Any]]] = {name: [] for name in _PAIRS}
    for pair in among:
        first, second = pictures[pair.first], pictures[pair.second]
        name = "across_splits" if first.split != second.split else "within_a_split"
        pairs[name].append(_plain_pair(pair, (first.file, first.split), (second.file, second.split)))
    for pair in shared:
        first = pictures[pair.first]
        theirs = other.pictures.files[pair.second], other.splits[pair.second]
        pairs["across_sets"].append(_plain_pair(pair, (first.file, first.split), theirs))
    return pairs


def _plain_pair(pair: NearDuplicate, first: tuple[str, str], second: tuple[str, str]) -> dict[str, Any]:
    return {
        "images": [first[0], second[0]],
        "splits": [first[1], second[1]],
        "distance": pair.distance,
        "turn": pair.turn,
        "blocks": pair.blocks,
    }


def _plain(finding: Finding) -> dict[str, Any]:
    values = {"label": finding.label, "image": finding.image, "caption": finding.caption, "detail": finding.detail}
    return {name: value for name, value in values.items() if value is not None}
