"""An index compared with the pictures it was made of, and what it says of itself."""

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.columns import FileRecord
from search.model import checksum_of
from search.table import Index
from utils.errors import InputError

CURRENT, CHANGED, VANISHED, BROKEN = "current", "changed", "vanished", "cannot be read"


def state_of(record: FileRecord) -> str:
    """Whether a file of the index is as it was; a member of an archive is where its archive is."""
    path = Path(record.path)
    try:
        found = os.stat(path)
        same = (found.st_size, found.st_mtime_ns) == (record.size, record.modified)
    except OSError:
        archive = next((parent for parent in path.parents if parent.is_file()), None)
        if archive is None:
            return VANISHED
        same = archive.stat().st_mtime_ns == record.modified
    if not same:
        return CHANGED
    return BROKEN if record.error else CURRENT


def compared(index: Index) -> dict[str, Any]:
    """How many files are in which state, those that are not current by name, and whether the rows are all there."""
    records = index.files()
    states = {path: state_of(record) for path, record in records.items()}
    model = None
    try:
        if checksum_of(index.about.model) != index.about.weights_sha256:
            model = f"{index.about.model} has other weights now"
    except InputError as error:
        model = str(error)
    rows, recorded = len(index), sum(record.rows for record in records.values())
    return {
        "files": dict(Counter(states.values())),
        "not_current": {path: state for path, state in sorted(states.items()) if state != CURRENT},
        "interrupted": sorted(index.unrecorded()),
        "rows": rows,
        "rows_recorded": recorded,
        "model": model,
    }


def described(index: Index) -> dict[str, Any]:
    """What the index holds and was made with, as plain values."""
    records, about = index.files(), index.about
    return {
        "index": index.uri,
        "files": len(records),
        "folders": dict(Counter(str(Path(path).parent) for path in records).most_common(20)),
        "tiles": len(index),
        "tiles_without_data": sum(record.empty for record in records.values()),
        "tiles_with_a_place": index.count("west IS NOT NULL"),
        "broken": {path: record.error for path, record in sorted(records.items()) if record.error},
        "search": about.search,
        **asdict(about),
        "picture_rule": about.picture_rule._asdict(),
    }
