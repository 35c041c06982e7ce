"""Queries: what to look for, where and when; and the tiles of an index that answer them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from os.path import abspath

import numpy as np
import pyarrow as pa
import shapely
from numpy import ndarray

from search.columns import instant, literal, window_of
from search.items import PictureFile, Tile, Window
from search.neighbours import matrix
from search.places import Region
from search.query_vectors import Model, Picture, query_vectors
from search.table import Index
from utils.errors import InputError, shown, warn

NEAR_DUPLICATE = 0.995  # cosine from which on two pictures are taken for one; other copies of one may be further apart
MOST = 10_000  # hits of a query


@dataclass(frozen=True)
class Query:
    """What to look for: texts and pictures with their weights, less texts with theirs; all else narrows it down."""

    texts: tuple[tuple[str, float], ...] = ()
    pictures: tuple[tuple[Picture, float], ...] = ()
    minus: tuple[tuple[str, float], ...] = ()
    regions: tuple[Region, ...] = ()  # a tile must touch each (`search/places.py`)
    since: datetime | None = None
    until: datetime | None = None  # this moment is past it
    folder: str | None = None  # or archive
    top: int = 10
    min_score: float | None = None
    fold: bool = True  # of near-duplicates show the best alone
    exact: bool = False  # compare with every row, even where the index has an approximate search

    def __post_init__(self) -> None:
        """Raise InputError for what cannot be asked."""
        if not self.texts and not self.pictures:
            raise InputError("a query needs a text or a picture to look for")
        if not 1 <= self.top <= MOST:
            raise InputError(f"top {self.top}: give 1 to {MOST}")
        for _, weight in (*self.texts, *self.pictures, *self.minus):
            if not 0 < weight < 1e6:
                raise InputError(f"weight {weight}: give a number more than 0; what is not wanted is 'minus'")
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise InputError(f"min_score {self.min_score}: give -1 to 1, as it is a cosine")
        if self.since and self.until and self.since >= self.until:
            raise InputError(f"nothing is since {self.since:%Y-%m-%d} and before {self.until:%Y-%m-%d %H:%M}")

    @property
    def name(self) -> str:
        """The query in a few words, to tell its answer from others'."""
        parts = [text for text, _ in self.texts]
        parts += ["a picture" if isinstance(p, ndarray) else str(p) for p, _ in self.pictures]
        return " + ".join(parts) + "".join(f" - {text}" for text, _ in self.minus)


@dataclass(frozen=True)
class Hit:
    """A tile that answers a query."""

    file: PictureFile
    tile: Tile
    taken: datetime | None
    score: float  # cosine


def moment(text: str, *, end: bool = False) -> datetime:
    """A date, `2026-05-31`, or a date with time (ISO 8601) as a moment, of UTC where it names no zone.

    end: of a date the moment its day is over. Raises InputError for anything else.
    """
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return found + timedelta(days=1) if end and len(text) <= len("2026-05-31") else found
    except (ValueError, OverflowError):
        raise InputError(f"{shown(text)} is no date; write 2026-05-31, or 2026-05-31T12:30+02:00") from None


def answer(index: Index, model: Model, queries: Sequence[Query]) -> list[list[Hit]]:
    """The hits of each query, best first; a warning where nothing in the index is as a query demands.

    The model must be the index's (`Index.check_model`). Raises InputError for what cannot be asked or answered.
    """
    vectors = query_vectors(index, model, queries) if queries else ()
    return [_hits(index, vector, query) for vector, query in zip(vectors, queries, strict=True)]


def _hits(index: Index, vector: ndarray, query: Query) -> list[Hit]:
    where = _condition(query)
    if query.regions and not index.count("west IS NOT NULL"):
        raise InputError(f"the index {index.uri} knows no picture's place, so none can be looked for by place")
    fetched = query.top * 2 if query.fold or query.regions else query.top
    while True:  # what is folded or lies beside the region makes room for others
        found = index.nearest(vector, fetched, where, exact=query.exact, vectors=query.fold)
        exhausted = len(found) < fetched
        kept = _kept(found, query)
        below = query.min_score is not None and len(found) and found["score"][-1].as_py() < query.min_score
        if len(kept) >= query.top or exhausted or below:
            break
        fetched *= 4
    if not len(found) and where:
        warn(f"query {shown(query.name)}: no tile of the index is where, when and in the folder it asks for")
    return [_hit(row) for row in kept[: query.top]]


def _condition(query: Query) -> str | None:
    """What the rows must fulfil, as SQL; of regions the bounds alone."""
    parts = [f"({region.condition()})" for region in query.regions]
    if query.since:
        parts.append(f"taken >= {instant(query.since)}")
    if query.until:
        parts.append(f"taken < {instant(query.until)}")
    if query.folder:
        parts.append(f"starts_with(path, {literal(abspath(query.folder).rstrip('/') + '/')})")
    return " AND ".join(parts) or None


def _kept(found: pa.Table, query: Query) -> list[dict]:
    """The rows, best first, that touch the regions, have the score and are no near-duplicates of better ones."""
    keep = np.ones(len(found), dtype=bool)
    if query.regions:
        footprints = shapely.from_wkt(found["footprint"].to_numpy(zero_copy_only=False))
        for region in query.regions:
            keep &= region.touches(footprints)
    if query.min_score is not None:
        keep &= found["score"].to_numpy() >= query.min_score
    found = found.filter(pa.array(keep))
    if not query.fold:
        return found.to_pylist()
    rows = found.drop_columns("vector").to_pylist()
    vectors = matrix(found)
    chosen: list[int] = []
    windows: dict[str, list[Window]] = {}  # of those chosen, by file
    for i, row in enumerate(rows):
        if len(chosen) == query.top:
            break
        alike = (vectors[chosen] @ vectors[i] >= NEAR_DUPLICATE).any()
        others = windows.setdefault(row["path"], [])
        if not alike and not any(_overlap(window_of(row), other) for other in others):
            chosen.append(i)
            others.append(window_of(row))
    return [rows[i] for i in chosen]


def _overlap(one: Window, other: Window) -> bool:
    """Whether two windows of a file share pixels."""
    (x, y, width, height), (column, row, wide, high) = one, other
    return x < column + wide and column < x + width and y < row + high and row < y + height


def _hit(row: dict) -> Hit:
    corners = None
    if row["footprint"] is not None:
        shape = shapely.from_wkt(row["footprint"])
        open_ring = shapely.get_coordinates(shape)[: -1 if shape.geom_type == "Polygon" else None]
        corners = tuple((lon, lat) for lon, lat in open_ring.tolist())
    file = PictureFile(row["path"], row["size"], row["modified"], row["archive"], row["member"])
    return Hit(file, Tile(window_of(row), row["whole"], corners), row["taken"], row["score"])
