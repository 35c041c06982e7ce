"""What an index lacks of the pictures there are, and the embedding of it."""

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from dataset.pictures import PictureRule
from dataset.transforms import evaluation_transform
from models.embedder import Embedder
from search.columns import FileRecord, Row
from search.files import Found
from search.items import PictureFile, Tiling
from search.launching import gather_objects
from search.opening import open_picture
from search.reading import Done, TileBatch, TileReader, batch_size, is_shared, tile_loader
from search.table import Index
from utils import processes
from utils.errors import InputError
from utils.logs import progress

FLUSH_ROWS = 1024  # written together: what an interruption loses at most


@dataclass
class Changes:
    """What differs between the pictures found and the index."""

    new: list[PictureFile]  # those that an interrupted run has begun among them
    changed: list[PictureFile]
    vanished: list[str]  # paths

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
    return Changes([file for file in new if file.path not in renewed], changed, vanished)


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
    index: Index,
    embedder: Embedder,
    files: Sequence[PictureFile],
    *,
    tiling: Tiling,
    rule: PictureRule,
    average_orientations: bool,
    num_workers: int,
) -> Outcome:
    """Embed this process's share of `files` and append it; every process must call this, with the same arguments.

    A small file is recorded as done with its rows; a large one, of which each reader has a share, at the end.
    """
    begun = index.unrecorded()
    reader = TileReader(
        files,
        tiling=tiling,
        rule=rule,
        transform=evaluation_transform(embedder.config.image_res),
        batch_size=batch_size(embedder),
        present={f.path: index.present(f.path, f.size, f.modified) for f in files if f.path in begun},
        rank=processes.rank(),
        world_size=processes.world_size(),
    )
    loader = tile_loader(reader, num_workers, pin_memory=embedder.device.type == "cuda")
    none = np.empty((0, index.about.dim), np.float32)
    rows: list[Row] = []
    embedded = [none]  # vectors [b, D] of the rows
    finished: list[Done] = []  # small files, whole
    recorded = 0  # of them, in the index
    parts: dict[str, list[Done]] = defaultdict(list)  # of large files, by path
    total = progress_total(files, tiling, rule)
    for batch in progress(loader, total, "embedding pictures", counts=units):
        if batch.tiles:
            vectors = embedder.embed_pixels(batch.images, average_orientations=average_orientations)
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


def units(batch: TileBatch) -> int:
    """What a batch counts in the progress: small files that are finished, and tiles of large ones."""
    tiles = sum(is_shared(of.file) for of in batch.tiles)
    return tiles + sum(done.empty if is_shared(done.file) else 1 for done in batch.done)


def progress_total(files: Sequence[PictureFile], tiling: Tiling, rule: PictureRule) -> int:
    """How many there will be for this process, about."""
    share, tiles = processes.world_size(), 0
    large = [file for file in files if is_shared(file)]
    for file in large:
        with suppress(InputError), open_picture(file, tiling, rule) as picture:
            tiles += len(picture.tiles)
    return math.ceil((len(files) - len(large)) / share) + math.ceil(tiles / share)


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
