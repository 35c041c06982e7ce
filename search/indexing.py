"""What an index lacks of the pictures there are, and the embedding of it."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from models.embedder import Embedder
from search.columns import FileRecord, Row
from search.embedding import embedded_tiles
from search.files import Found
from search.items import PictureFile
from search.launching import gather_objects
from search.reading import Done, is_shared
from search.settings import Settings
from search.table import Index
from utils import processes

FLUSH_ROWS = 1024  # written together: what an interruption loses at most


@dataclass
class Changes:
    """What differs between the pictures found and the index."""

    new: list[PictureFile]  # those that an interrupted run has begun among them
    changed: list[PictureFile]
    vanished: list[str]  # paths
    pending: list[PictureFile]  # new and changed ones in the order found, in which a compressed archive is read once

    @property
    def summary(self) -> str:
        """How many are to be embedded, embedded again and dropped."""
        return f"{len(self.new)} to embed, {len(self.changed)} changed, {len(self.vanished)} vanished"


@dataclass
class Outcome:
    """What an indexing did, over all processes."""

    rows: int = 0
    empty: int = 0
    remarks: list[str] = field(default_factory=list)  # on pictures that were not as asked


def changes_of(index: Index, found: Found, roots: Sequence[str]) -> Changes:
    """Compare by size and time of change.

    Only what lies under `roots` can have vanished, but for what lies in a folder or archive that cannot be read now.
    """
    known, begun = index.files(), index.unrecorded()
    unread = [path for path, _ in found.problems]
    there = {file.path for file in found.files}
    new = [file for file in found.files if file.path not in known]
    changed = [file for file in found.files if file.path in known and not _same(known[file.path], file)]
    changed += [file for file in new if file.path in begun and not index.present(file.path, file.size, file.modified)]
    gone = [path for path in {*known, *begun} if path not in there and is_under(path, roots)]
    vanished = [path for path in gone if not is_under(path, unread)]
    renewed = {file.path for file in changed}
    new = [file for file in new if file.path not in renewed]
    wanted = renewed | {file.path for file in new}
    return Changes(new, changed, vanished, [file for file in found.files if file.path in wanted])


def broken_under(index: Index, roots: Sequence[str]) -> list[tuple[str, str]]:
    """The files of the index under `roots` that cannot be read, each with what is wrong with it."""
    under = [os.path.abspath(root) for root in roots]
    return [(path, r.error) for path, r in sorted(index.files().items()) if r.error and is_under(path, under)]


def is_under(path: str, roots: Sequence[str]) -> bool:
    """Whether a path is one of the folders or archives, or in one."""
    return path in roots or path.startswith(tuple(root.rstrip("/") + "/" for root in roots))


def _same(record: FileRecord, file: PictureFile) -> bool:
    return (record.size, record.modified) == (file.size, file.modified)


def embed_into(
    index: Index, embedder: Embedder, files: Sequence[PictureFile], settings: Settings, num_workers: int | None
) -> Outcome:
    """Embed this process's share of `files` and append it; every process must call this, with the same arguments.

    A small file is recorded as done with its rows; a large one, of which each reader has a share, at the end.
    """
    begun = index.unrecorded()
    present = {f.path: index.present(f.path, f.size, f.modified) for f in files if f.path in begun}
    none = np.empty((0, index.about.dim), np.float32)
    rows: list[Row] = []
    embedded = [none]  # vectors [b, D] of the rows
    finished: list[Done] = []  # small files, whole
    recorded = 0  # of them, in the index
    parts: dict[str, list[Done]] = defaultdict(list)  # of large files, by path
    for batch, vectors in embedded_tiles(embedder, files, settings, num_workers, present):
        embedded.append(vectors)
        rows += [Row(file, tile, taken or of_file(file)) for file, tile, taken in batch.tiles]
        for done in batch.done:
            if is_shared(done.file):
                parts[done.file.path].append(done)
            else:
                finished.append(done)
        if len(rows) >= FLUSH_ROWS:
            index.add(rows, np.concatenate(embedded), [_record(done) for done in finished[recorded:]])
            rows, embedded, recorded = [], [none], len(finished)
    index.add(rows, np.concatenate(embedded), [_record(done) for done in finished[recorded:]])
    whole = [_joined(shares) for shares in _of_all_processes(parts).values()]
    if processes.is_main():
        index.add([], none, [_record(done) for done in whole])
        finished += whole
    return _outcome(_of_all_processes({"": finished})[""])


def _of_all_processes(parts: Mapping[str, list[Done]]) -> dict[str, list[Done]]:
    """What every process has under a name, joined."""
    joined: dict[str, list[Done]] = defaultdict(list)
    for of_process in gather_objects(dict(parts)):
        for name, done in of_process.items():
            joined[name] += done
    return joined


def _joined(shares: list[Done]) -> Done:
    """A large file's shares as one."""
    errors = [share.error for share in shares if share.error]
    rows, empty = sum(share.rows for share in shares), sum(share.empty for share in shares)
    return Done(shares[0].file, rows, empty, errors[0] if errors else None, shares[0].remarks)


def _record(done: Done) -> FileRecord:
    file = done.file
    return FileRecord(file.path, file.size, file.modified, done.rows, done.empty, done.error)


def _outcome(finished: list[Done]) -> Outcome:
    remarks = [remark for done in finished for remark in done.remarks]
    return Outcome(sum(done.rows for done in finished), sum(done.empty for done in finished), remarks)


def of_file(file: PictureFile) -> datetime | None:
    """When a file was last changed, for a picture that does not say when it was taken; None for no date there is."""
    try:
        return datetime.fromtimestamp(file.modified / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return None
