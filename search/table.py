"""The index: LanceDB tables in a folder or an object store. `pictures` has a row a tile, `files` a record a file.

A third, `about`, says what the index was made with; it is written last, so that an index without it is half-made. Rows
are written before their file's record: what a crash cuts short has rows and no record, and the next run goes on there.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy import ndarray

from dataset.pictures import USUAL, PictureRule
from search import neighbours
from search.columns import RECORDS, FileRecord, Row, any_of, row_schema, row_table, window_of
from search.items import Tiling, Window
from utils.errors import InputError, listed, reason, shown
from utils.output import LOCK, lock, unlock
from utils.typed import Count, read_fields, read_value

VERSION = 1
PICTURES, FILES, ABOUT = "pictures", "files", "about"
KEPT = timedelta(days=1)  # what was replaced, for readers who opened the index before
PATHS_AT_ONCE = 5000  # in one SQL condition


@dataclass(frozen=True)
class About:
    """What an index was made with."""

    weights_sha256: str
    model: str  # as it was named
    dim: Count
    tiling: Tiling
    average_orientations: bool = False
    picture_rule: PictureRule = USUAL
    created: str = ""  # UTC, ISO 8601; of now where empty
    recall: float | None = None  # of the approximate search, see `neighbours.recall`; None: search is exact
    version: int = VERSION

    @property
    def search(self) -> str:
        """How queries are answered, in words."""
        return "exact" if self.recall is None else f"approximate, recall at 10 {self.recall:.3f}"


class Index:
    """An opened index. A reader sees it as it was when opened."""

    def __init__(self, uri: str, tables: dict[str, Any], about: About) -> None:
        self.uri = uri
        self.about = about
        self._pictures, self._files, self._about = tables[PICTURES], tables[FILES], tables[ABOUT]

    def __len__(self) -> int:
        """The number of tiles."""
        return self.count()

    def count(self, where: str | None = None) -> int:
        """The number of tiles that fulfil an SQL condition."""
        with _told(self.uri):
            return self._pictures.count_rows(where)

    def check_model(self, weights_sha256: str, name: str) -> None:
        """Raise InputError where a model, by its weights' checksum, is not the one that the index was made with."""
        if weights_sha256 != self.about.weights_sha256:
            raise InputError(
                f"the index {self.uri} was made with {shown(self.about.model, 200)} (sha256 "
                f"{self.about.weights_sha256[:12]}), not with {name} ({weights_sha256[:12]}); give that model, or "
                "index again"
            )

    # ---- writing ----

    def lock(self) -> None:
        """Keep the index for this process until it ends; InputError naming the process that writes it already.

        Of several processes of one run process 0 locks for all. In an object store nothing is locked: there Lance's
        commits alone keep two writers from damage, and both may add the same file.
        """
        lock_index(self.uri)

    def add(self, rows: Sequence[Row], vectors: ndarray, files: Sequence[FileRecord] = ()) -> None:
        """Append tiles with their unit embeddings `[N, D]`, then the records of the files that are done with them."""
        if vectors.shape != (len(rows), self.about.dim):
            raise InputError(f"index {self.uri}: embeddings are {list(vectors.shape)}, not [N, {self.about.dim}]")
        if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            raise InputError(f"the model gives {shown(rows[bad[0]].file.path, 200)} an embedding that is not finite")
        with _told(self.uri):
            if rows:
                self._pictures.add(row_table(rows, vectors))
            if files:
                self._files.add(pa.Table.from_pylist([asdict(record) for record in files], schema=RECORDS))

    def remove(self, paths: Sequence[str]) -> None:
        """Forget these files, tiles first: what a crash leaves is a record, which the next run removes again."""
        with _told(self.uri):
            for start in range(0, len(paths), PATHS_AT_ONCE):
                for table in (self._pictures, self._files):
                    table.delete(any_of("path", paths[start : start + PATHS_AT_ONCE]))

    def finish(self) -> None:
        """After a run: small pieces become large ones, and a large index gets an approximate search of known recall."""
        with _told(self.uri):
            for table in (self._pictures, self._files):
                table.checkout_latest()  # what other processes added
                table.optimize(cleanup_older_than=KEPT)
            self.about = replace(self.about, recall=neighbours.prepare(self._pictures))
            self._about.add(_about_table(self.about), mode="overwrite")

    # ---- what is there ----

    def files(self) -> dict[str, FileRecord]:
        """The records of all files that are done with, by path."""
        with _told(self.uri):
            return {record["path"]: FileRecord(**record) for record in self._files.to_arrow().to_pylist()}

    def unrecorded(self) -> set[str]:
        """The paths of files that an interrupted run did not finish: they have tiles and no record."""
        return set(self._unfinished)

    def present(self, path: str, size: int, modified: int) -> set[Window]:
        """The windows of an unrecorded file that are in the index already; none where the file was another then.

        As it was when first asked: it is for the start of a run.
        """
        return self._unfinished.get(path, {}).get((size, modified), set())

    @cached_property
    def _unfinished(self) -> dict[str, dict[tuple[int, int], set[Window]]]:
        """The windows of each unrecorded file, by its size and time then."""
        columns = ["path", "size", "modified", "column", "row", "width", "height"]
        found: dict[str, dict[tuple[int, int], set[Window]]] = {}
        with _told(self.uri):
            recorded = self._files.to_arrow()["path"].combine_chunks()
            for batch in self._pictures.search().select(columns).to_batches():
                for row in batch.filter(pc.invert(pc.is_in(batch["path"], recorded))).to_pylist():
                    version = (row["size"], row["modified"])
                    found.setdefault(row["path"], {}).setdefault(version, set()).add(window_of(row))
        return found

    def vectors(self, where: str) -> ndarray:
        """The unit vectors `[N, D]` of the tiles that fulfil an SQL condition."""
        with _told(self.uri):
            return neighbours.matrix(self._pictures.search().where(where).select(["vector"]).to_arrow())

    # ---- searching ----

    def nearest(
        self, vector: ndarray, top: int, where: str | None = None, *, exact: bool = False, vectors: bool = False
    ) -> pa.Table:
        """The `top` tiles nearest to a unit vector `[D]` of those that fulfil an SQL condition, the best first.

        All columns and `score`, the cosine; `vector` only if asked for. exact: even where an approximate search is
        there.
        """
        columns = [name for name in row_schema(self.about.dim).names if vectors or name != "vector"]
        with _told(self.uri):
            return neighbours.nearest(self._pictures, vector, top, columns, where=where, exact=exact)


def exists(uri: str | Path) -> bool:
    """Whether there is an index; one that was left half-made is none, and `create` replaces it."""
    if not _remote(str(uri)) and not Path(uri).is_dir():
        return False
    with _told(str(uri)):
        return ABOUT in _tables(lancedb.connect(str(uri)))


def lock_index(uri: str | Path) -> None:
    """Keep the index, made or still to be made, for this process until it ends; see `Index.lock`."""
    if not _remote(str(uri)):
        try:
            Path(uri).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"an index cannot be made in {uri} ({error.strerror})") from None
        _lock(Path(uri))


def unlock_index(uri: str | Path) -> None:
    """Give the index free for another writer."""
    if not _remote(str(uri)):
        unlock(Path(uri))


def create(uri: str | Path, about: About) -> Index:
    """A new index in a new or empty folder, or in an object store; an index that was left half-made is made again.

    It is locked (`Index.lock`). Raises InputError where it cannot be written or something else is there.
    """
    uri = str(uri)
    if not _remote(uri):
        _claim(Path(uri))
    with _told(uri):
        database = lancedb.connect(uri)
        if ABOUT in _tables(database):
            raise InputError(f"{uri} holds an index already; open it, or name another folder")
        _check_own(database, uri)
        about = replace(about, created=about.created or datetime.now(UTC).isoformat(timespec="seconds"))
        contents = {PICTURES: row_schema(about.dim), FILES: RECORDS, ABOUT: _about_table(about)}
        tables = {}
        for name, content in contents.items():
            data = {"schema": content} if isinstance(content, pa.Schema) else {"data": content}
            tables[name] = database.create_table(name, **data, mode="overwrite")
    return Index(uri, tables, about)


def open_index(uri: str | Path, *, writing: bool = False) -> Index:
    """The index at a folder or URI.

    Raises InputError where there is none, it is half-made, damaged or of another version, and, for writing, where it
    cannot be written.
    """
    uri = str(uri)
    if not _remote(uri) and not Path(uri).is_dir():
        raise InputError(f"there is no index {uri}; make one with Search.py index")
    with _told(uri):
        database = lancedb.connect(uri)
        found = _tables(database)
        if not {PICTURES, FILES, ABOUT} & found:
            raise InputError(f"{uri} is no index; name the folder that Search.py index wrote")
        if missing := sorted({PICTURES, FILES, ABOUT} - found):
            raise InputError(f"the index {uri} is half-made, it lacks {', '.join(missing)}; make it again")
        tables = {name: database.open_table(name) for name in (PICTURES, FILES, ABOUT)}
        about = _about_in(tables[ABOUT], uri)
        if tables[PICTURES].schema != row_schema(about.dim) or tables[FILES].schema != RECORDS:
            raise InputError(f"the index {uri} has other columns than one of version {VERSION}; make it again")
    if writing and not _remote(uri):
        try:
            with TemporaryFile(dir=uri):
                pass
        except OSError as error:
            raise InputError(f"the index {uri} cannot be written ({error.strerror})") from None
    return Index(uri, tables, about)


def _about_table(about: About) -> pa.Table:
    said = asdict(about)
    said |= {f"picture_rule_{key}": value for key, value in said.pop("picture_rule")._asdict().items()}
    return pa.table({"json": [json.dumps(said)]})


def _about_in(table: Any, uri: str) -> About:
    """What an index says of itself, checked."""
    problems: list[str] = []
    try:
        said = json.loads(table.to_arrow()["json"][0].as_py())
        version = said["version"]
        deep, bands = said.pop("picture_rule_deep"), said.pop("picture_rule_bands")
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the index {uri} does not say what it was made with ({reason(error)[:100]})") from None
    if version != VERSION:
        raise InputError(f"the index {uri} is of version {shown(version)}, not this program's {VERSION}; make it again")
    fields = read_fields(About, said, "", problems)
    rule = PictureRule(
        read_value(deep, str, "picture_rule_deep", problems),
        read_value(bands, tuple[int, ...] | None, "picture_rule_bands", problems),
    )
    if problems:
        raise InputError(f"the index {uri} says of itself what no index does: {listed(problems)}")
    return About(**fields | {"picture_rule": rule})


def _tables(database: Any) -> set[str]:
    return set(database.list_tables(limit=100).tables)


def _check_own(database: Any, uri: str) -> None:
    """Raise InputError where a table of one of our names is another program's."""
    for name, columns in ((PICTURES, row_schema(1).names), (FILES, RECORDS.names)):
        if name in _tables(database) and database.open_table(name).schema.names != columns:
            raise InputError(f"{uri} holds another program's table {name}; name another folder for the index")


def _claim(folder: Path) -> None:
    """Make and lock a folder; InputError where it holds anything but an index that was left half-made."""
    own = {LOCK, *(f"{name}.lance" for name in (PICTURES, FILES, ABOUT))}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in own)
    except OSError as error:
        raise InputError(f"an index cannot be made in {folder} ({error.strerror})") from None
    if foreign:
        raise InputError(f"an index cannot be made in {folder}: it holds {shown(foreign[0])}; name an empty folder")
    _lock(folder)


def _lock(folder: Path) -> None:
    try:
        lock(folder, "index into another folder")
    except OSError as error:
        raise InputError(f"the index {folder} cannot be written ({error.strerror})") from None


def _remote(uri: str) -> bool:
    return "://" in uri


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Errors of the database, which are of nearly any kind, as one line that names the index."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        said = re.sub(r",? \S+\.rs:\d+(:\d+)?", "", reason(error))  # where in its source
        raise InputError(f"the index {uri} cannot be used: {said[:300]}") from None
