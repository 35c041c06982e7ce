"""The columns of an index: what a row says of a tile and a record of a file, to Arrow and back, and SQL literals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import shapely
from numpy import ndarray

from search.items import PictureFile, Tile, Window
from search.places import outline

RECORDS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("empty", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
WINDOW = ("column", "row", "width", "height")


@dataclass(frozen=True)
class Row:
    """A tile of a file, as it stands in the index beside its embedding."""

    file: PictureFile
    tile: Tile
    taken: datetime | None


@dataclass(frozen=True)
class FileRecord:
    """A file that is done with: all its tiles are in the index, or it is broken."""

    path: str
    size: int
    modified: int
    rows: int  # tiles in the index
    empty: int  # tiles without data
    error: str | None = None  # why it could not be read


def row_schema(dim: int) -> pa.Schema:
    """The columns of `pictures`, a row a tile."""
    degrees = ("longitude", "latitude", "west", "south", "east", "north")  # east passes 180 beyond the antimeridian
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("archive", pa.string()),
            pa.field("member", pa.string()),
            *(pa.field(name, pa.int32(), nullable=False) for name in WINDOW),
            pa.field("whole", pa.bool_(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("modified", pa.int64(), nullable=False),
            pa.field("taken", pa.timestamp("us", "UTC")),
            *(pa.field(name, pa.float64()) for name in degrees),
            pa.field("footprint", pa.string()),  # WKT
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def row_table(rows: Sequence[Row], vectors: ndarray) -> pa.Table:
    """Rows and their unit vectors `[N, D]` as Arrow."""
    dim = vectors.shape[1]
    columns = [_described(row) for row in rows]
    flat = pa.array(vectors.astype("float32", copy=False).ravel())
    table = pa.Table.from_pylist(columns, schema=row_schema(dim).remove(row_schema(dim).get_field_index("vector")))
    return table.append_column(row_schema(dim).field("vector"), pa.FixedSizeListArray.from_arrays(flat, dim))


def _described(row: Row) -> dict[str, object]:
    file, tile = row.file, row.tile
    described: dict[str, object] = {
        "path": file.path,
        "archive": file.archive,
        "member": file.member,
        **dict(zip(WINDOW, tile.window, strict=True)),
        "whole": tile.whole,
        "size": file.size,
        "modified": file.modified,
        "taken": row.taken,
    }
    if tile.footprint:
        shape = outline(tile.footprint)
        west, south, east, north = shape.bounds
        described |= {"west": west, "south": south, "east": east, "north": north, "footprint": shapely.to_wkt(shape, 9)}
        described |= {"longitude": (west + east) / 2, "latitude": (south + north) / 2}
    return described


def window_of(row: dict) -> Window:
    """The window that a row's columns tell."""
    return (row["column"], row["row"], row["width"], row["height"])


# ---- SQL, in the dialect of DataFusion ----


def literal(text: str) -> str:
    """A text as an SQL literal: a quote is doubled, nothing else is special."""
    return "'" + text.replace("'", "''") + "'"


def instant(moment: datetime) -> str:
    """A moment with a time zone as an SQL literal."""
    return f"TIMESTAMP {literal(moment.isoformat())}"


def any_of(column: str, texts: Iterable[str]) -> str:
    """The condition that a column has one of these texts."""
    return f"{column} IN ({', '.join(literal(text) for text in texts)})"
