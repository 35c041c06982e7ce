"""Training sets as webdataset tar shards: which there are by their index, and what a sample holds.

Beside `name-000000.tar`, `name-000001.tar`, ... stands `name.json`, which says how much each holds. A sample is one
picture, `000000042.jpg` with the bytes of the original file, and `000000042.json` with what train annotations say of
it: `{"image", "image_id", "captions", "label", "label_name"}`. The launcher reads the index too, so no torch here.
"""

import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataset.annotations import TrainRecord
from dataset.captions import clean_caption
from dataset.picture_names import has_picture_suffix
from utils.errors import InputError, reason
from utils.files import read_json, write_whole
from utils.typed import Count, WholeFromZero, read_value

FORMAT = 1
IMG2DATASET_INDEX = "shards.json"  # written next to shards that come without, `00000.tar`, `00001.tar`, ...
_PATTERN = re.compile(
    r"(?:(?P<name>.+)-|(?P<folder>.*/)?)"
    r"(?:\{(?P<first>[0-9]{1,9})\.\.(?P<last>[0-9]{1,9})\}|(?P<only>[0-9]{1,9}))\.tar"
)
_MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class IndexedShard:
    """A line of the index."""

    file: str  # a name in the index's folder
    pictures: Count
    captions: Count
    bytes: WholeFromZero


@dataclass(frozen=True)
class ShardIndex:
    """`name.json`."""

    format: int
    labels: bool  # whether every picture has one
    shards: tuple[IndexedShard, ...]
    label_names: Mapping[str, str] | None = None  # of each label's number; None where a picture has none


class Shard(NamedTuple):
    """A tar file, and what stands in it by its index."""

    file: str
    pictures: int
    captions: int
    first_picture: int  # how many pictures stand in the shards before it; a picture's number is its image id


def read_shards(patterns: Sequence[str], *, labels_required: bool) -> list[Shard]:
    """The shards that patterns as `folder/name-{000000..000099}.tar` name, checked against their index.

    Raises `InputError` for a shard that is missing or of another size than its index says, for an index that is
    missing, damaged or names other shards, and for pictures without labels where those are required.
    """
    shards: list[Shard] = []
    known: set[Path] = set()
    scenes: dict[Path, Mapping[str, str] | None] = {}  # of each index
    for pattern in patterns:
        names, file_of_index = shard_names(pattern), index_of(pattern)
        if _parts(pattern)["name"] is None and not file_of_index.exists():
            _write_index_of(file_of_index, names)
        index = read_index(file_of_index)
        if labels_required and not index.labels:
            raise InputError(f"{file_of_index} has pictures without a label, which use_affil_loss needs")
        if labels_required:
            _check_same_scenes(scenes, index, file_of_index)
        lines = {line.file: line for line in index.shards}
        unknown = [name for name in names if name not in lines]
        if unknown:
            raise InputError(f"{pattern}: {file_of_index} knows {len(lines)} shards, and {unknown[0]} is none of them")
        for name in names:
            line, file = lines[name], file_of_index.parent / name
            if not file.is_file():
                raise InputError(f"{file} is missing, which {file_of_index} names")
            size = file.stat().st_size
            if size != line.bytes:
                raise InputError(f"{file} has {size} bytes, {file_of_index} says {line.bytes}: copy it again")
            if file.resolve() in known:
                raise InputError(f"train_file names {file} twice")
            known.add(file.resolve())
            before = shards[-1].first_picture + shards[-1].pictures if shards else 0
            shards.append(Shard(str(file), line.pictures, line.captions, before))
    return shards


def _check_same_scenes(scenes: dict[Path, Mapping[str, str] | None], index: ShardIndex, file: Path) -> None:
    """Raise InputError where a label's number means another scene than in the indexes read before, or may."""
    scenes[file.resolve()] = index.label_names
    for other, names in scenes.items():
        if names != index.label_names:  # where neither index has names, the numbers are believed
            raise InputError(
                f"{other} and {file} may number scenes differently; write them as one set of shards, or train without "
                "use_affil_loss"
            )


def index_of(pattern: str) -> Path:
    """The index of the shards that a pattern names, which has their sizes."""
    found = _parts(pattern)
    return Path(f"{found['name']}.json") if found["name"] else Path(found["folder"] or "", IMG2DATASET_INDEX)


def _write_index_of(file: Path, names: Sequence[str]) -> None:
    """Write the index that img2dataset's shards come without: members `.jpg`, `.txt` and `.json`, one caption each.

    All shards of the folder are in it, so that it serves other patterns too. Only headers of members are read.
    """
    lines = []
    for shard in sorted(path for path in file.parent.glob("*.tar") if path.stem.isdigit()):
        try:
            with tarfile.open(shard, "r:") as opened:
                members = [Path(member.name) for member in opened if member.isfile()]
        except (tarfile.TarError, OSError) as error:
            raise InputError(f"cannot read the shard {shard}: {reason(error)}; copy or download it anew") from None
        pictures = {member.with_suffix("") for member in members if has_picture_suffix(member)}
        described = {member.with_suffix("") for member in members if member.suffix in (".txt", ".json")}
        if not pictures or pictures - described:
            first = min(map(str, pictures - described), default="none")
            raise InputError(f"{shard} lacks captions, .txt or .json, of {len(pictures - described)} pictures: {first}")
        sizes = {"pictures": len(pictures), "captions": len(pictures), "bytes": shard.stat().st_size}
        lines.append({"file": shard.name, **sizes})
    missing = sorted(set(names) - {str(line["file"]) for line in lines})
    if missing:
        raise InputError(f"{file.parent / missing[0]} is missing, {len(missing)} of {len(names)} shards are")
    write_whole(file, json.dumps({"format": FORMAT, "labels": False, "shards": lines}, indent=1).encode())


def _parts(pattern: str) -> re.Match[str]:
    found = _PATTERN.fullmatch(pattern)
    if not found:
        raise InputError(f"train_file {pattern!r}: shards are named as folder/name-{{000000..000099}}.tar")
    return found


def shard_names(pattern: str) -> list[str]:
    """The file names that a pattern stands for."""
    found = _parts(pattern)
    first = found["only"] or found["first"]
    numbers = range(int(first), int(found["only"] or found["last"]) + 1)
    if not 0 < len(numbers) <= _MOST_SHARDS:
        raise InputError(f"train_file {pattern!r} names {len(numbers)} shards; give 1 to {_MOST_SHARDS}")
    start = f"{Path(found['name']).name}-" if found["name"] else ""
    return [f"{start}{number:0{len(first)}d}.tar" for number in numbers]


def read_index(file: Path) -> ShardIndex:
    """The index of shards, checked; else `InputError`."""
    problems: list[str] = []
    try:
        values = read_json(file)
    except InputError as error:
        raise InputError(f"{error}; write the shards anew") from None
    index = read_value(values, ShardIndex, "index", problems)
    if problems or index.format != FORMAT or any(Path(shard.file).name != shard.file for shard in index.shards):
        raise InputError(f"{file} is no index of shards that this program wrote: write the shards anew")
    return index


def sample_records(
    content: bytes | None, image: str, image_id: int, *, labels_required: bool, text: bytes | None = None
) -> list[TrainRecord]:
    """The records of one sample's JSON, with cleaned captions; `InputError` for what is not as it should be.

    text: the caption of a sample that img2dataset made, whose JSON says other things, or is not there.
    """
    try:
        values = json.loads(content) if content is not None else {}
        if text is not None:
            values = {"captions": [text.decode("utf-8-sig")]}
    except (ValueError, RecursionError):
        raise InputError(f"{image}: its JSON is damaged") from None
    values = values if isinstance(values, dict) else {}
    if "captions" not in values and "caption" in values:
        values["captions"] = [values["caption"]]
    captions, label, label_name = (values.get(key) for key in ("captions", "label", "label_name"))
    if not isinstance(captions, list) or not captions or not all(isinstance(caption, str) for caption in captions):
        raise InputError(f"{image}: its JSON has no list of captions")
    whole = type(label) is int and -(2**63) <= label < 2**63
    if not whole and (labels_required or label is not None):
        raise InputError(f"{image}: its JSON has no whole number as label")
    label_name = label_name if isinstance(label_name, str) else None
    return [TrainRecord(clean_caption(caption), image, image_id, label, label_name) for caption in captions]
