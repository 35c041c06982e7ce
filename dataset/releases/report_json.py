"""report.json: what a preparation was made from and gave, so that a second run and another data set can rely on it."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.pictures import PictureRule
from dataset.releases.defects import KINDS, Defects
from dataset.releases.listing import SPLITS, ListedPicture, Listing
from dataset.releases.near_duplicates import RULE, Hashed, NearDuplicate, near_duplicates
from dataset.releases.perceptual_hash import hash_from_text, hash_text
from dataset.releases.picture_check import PictureCheck
from dataset.shared_pictures import REPORT
from utils.errors import InputError
from utils.files import file_checksum, leads_outside, read_json
from utils.picture_rule import impossible_rule

FORMAT = 2  # raised when the same input begins to give other output
_PARTS = ("label", "image", "caption", "detail")  # of a finding


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
            rule = rule_of(values["arguments"])
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
        self.pictures = Hashed(files, root, np.stack(hashes)[:, None], rule)


def rule_of(arguments: Mapping[str, Any]) -> PictureRule:
    """How a preparation read its pictures, from its arguments in `report.json`; ValueError where they are no rule."""
    bands = tuple(map(int, arguments["bands"])) if arguments.get("bands") else None
    rule = PictureRule(str(arguments.get("deep_pictures", PictureRule().deep)), bands)
    if problems := impossible_rule(*rule):
        raise ValueError(problems[0])
    return rule


def input_checksum(sources: Sequence[Path], pictures: Mapping[str, str]) -> str:
    """One SHA-256 over the files a release was read from and the pictures' own, by file under the image folder."""
    total = hashlib.sha256()
    for name, checksum in [*((source.name, file_checksum(source)) for source in sources), *sorted(pictures.items())]:
        total.update(f"{name} {checksum}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def is_done(output_dir: Path, arguments: dict[str, Any], listing: Listing, files: Sequence[str]) -> bool:
    """Whether the report in `output_dir` stands for these arguments and this input, and its output is complete."""
    try:
        report = read_json(output_dir / REPORT)
        made_from = report["format"], report["arguments"], report["image_root"]
        if made_from != (FORMAT, arguments, relative_root(listing.image_root, output_dir)):
            return False
        if any(file_checksum(output_dir / name) != checksum for name, checksum in report["outputs"].items()):
            return False
        checksums = {file: file_checksum(listing.image_root / file) for file in files}
        return report["input_checksum"] == input_checksum(listing.sources, checksums)
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
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
    pairs: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """The plain values of report.json; the checksums of the outputs are for the caller to add."""
    splits = {split: [picture for picture in pictures if picture.split == split] for split in SPLITS}
    return {
        "format": FORMAT,
        "arguments": arguments,
        "image_root": image_root,
        "counts": {split: _counts(of_split) for split, of_split in splits.items()},
        "input_checksum": checksum,
        "outputs": {},
        "defects": {
            name: {
                "title": kind.title,
                "rule": kind.rule,
                "count": len(defects[name]),
                "pictures": len({finding.image for finding in defects[name]}),
                "items": [
                    {part: value for part in _PARTS if (value := getattr(finding, part)) is not None}
                    for finding in defects[name]
                ],
            }
            for name, kind in KINDS.items()
        },
        "near_duplicates": {"rule": RULE, **pairs},
        "pictures": {
            split: {file: hash_text(checks[file].hashes[0]) for file in sorted(picture.file for picture in of_split)}
            for split, of_split in splits.items()
        },
    }


def _counts(pictures: Sequence[ListedPicture]) -> dict[str, int]:
    return {
        "pictures": len(pictures),
        "captions": sum(len(picture.captions) for picture in pictures),
        "labels": len({picture.label_name for picture in pictures} - {None}),
    }


def near_duplicate_pairs(
    image_root: Path,
    pictures: Sequence[ListedPicture],
    checks: Mapping[str, PictureCheck],
    other: OtherSet | None,
    rule: PictureRule,
) -> dict[str, list[dict[str, Any]]]:
    """The near-duplicates among readable pictures, and between them and another set, as report.json has them."""
    own = [(picture.file, picture.split) for picture in pictures]
    files = [picture.file for picture in pictures]
    hashed = Hashed(files, image_root, np.stack([checks[file].hashes for file in files]), rule)

    def plain(pair: NearDuplicate, others: Sequence[tuple[str, str]]) -> dict[str, Any]:
        images, splits = zip(own[pair.first], others[pair.second], strict=True)
        compared = {"distance": pair.distance, "turn": pair.turn, "blocks": pair.blocks}
        return {"images": list(images), "splits": list(splits), **compared}

    shared: list[dict[str, Any]] = []
    if other:
        theirs = list(zip(other.pictures.files, other.splits, strict=True))
        shared = [plain(pair, theirs) for pair in near_duplicates(hashed, other.pictures)]
    among = [plain(pair, own) for pair in near_duplicates(hashed)]
    return {
        "across_splits": [pair for pair in among if len(set(pair["splits"])) == 2],
        "within_a_split": [pair for pair in among if len(set(pair["splits"])) == 1],
        "across_sets": shared,
    }
