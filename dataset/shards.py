"""Training sets as webdataset tar shards: which there are by their index, and what a sample holds.

Beside `name-000000.tar`, `name-000001.tar`, ... stands `name.json`, which says how much each holds. A sample is one
picture, `000000042.jpg` with the bytes of the original file, and `000000042.json` with what train annotations say of
it: `{"image", "image_id", "captions", "label", "label_name"}`. The launcher reads the index too, so no torch here.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataset.annotations import TrainRecord
from dataset.captions import clean_caption
from utils.errors import InputError
from utils.files import read_json
from utils.typed import Count, WholeFromZero, read_value

FORMAT = 1
_PATTERN = re.compile(r"(?P<name>.+)-(?:\{(?P<first>[0-9]{1,9})\.\.(?P<last>[0-9]{1,9})\}|(?P<only>[0-9]{1,9}))\.tar")
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
    for pattern in patterns:
        names, file_of_index = _names(pattern), index_of(pattern)
        index = read_index(file_of_index)
        if labels_required and not index.labels:
            raise InputError(f"{file_of_index} has pictures without a label, which use_affil_loss needs")
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


def index_of(pattern: str) -> Path:
    """The index of the shards that a pattern names, which has their sizes."""
    return Path(f"{_parts(pattern)['name']}.json")


def _parts(pattern: str) -> re.Match[str]:
    found = _PATTERN.fullmatch(pattern)
    if not found:
        raise InputError(f"train_file {pattern!r}: shards are named as folder/name-{{000000..000099}}.tar")
    return found


def _names(pattern: str) -> list[str]:
    """The file names that a pattern stands for."""
    found = _parts(pattern)
    first = found["only"] or found["first"]
    numbers = range(int(first), int(found["only"] or found["last"]) + 1)
    if not 0 < len(numbers) <= _MOST_SHARDS:
        raise InputError(f"train_file {pattern!r} names {len(numbers)} shards; give 1 to {_MOST_SHARDS}")
    name = Path(found["name"]).name
    return [f"{name}-{number:0{len(first)}d}.tar" for number in numbers]


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


def sample_records(content: bytes, image: str, image_id: int, *, labels_required: bool) -> list[TrainRecord]:
    """The records of one sample's JSON, with cleaned captions; `InputError` for what is not as it should be."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{image}: its JSON is damaged") from None
    values = values if isinstance(values, dict) else {}
    captions, label, label_name = (values.get(key) for key in ("captions", "label", "label_name"))
    if not isinstance(captions, list) or not captions or not all(isinstance(caption, str) for caption in captions):
        raise InputError(f"{image}: its JSON has no list of captions")
    whole = type(label) is int and -(2**63) <= label < 2**63
    if not whole and (labels_required or label is not None):
        raise InputError(f"{image}: its JSON has no whole number as label")
    label_name = label_name if isinstance(label_name, str) else None
    return [TrainRecord(clean_caption(caption), image, image_id, label, label_name) for caption in captions]
