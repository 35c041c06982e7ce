"""A large picture is cut into overlapping tiles that cover it and stay inside."""

from search.items import Tiling, Window
from utils.errors import InputError

MOST_TILES = 1_000_000  # of one file


def windows(size: tuple[int, int], side: tuple[float, float], overlap: float, name: str) -> list[Window]:
    """The tiles of a picture, row after row; the last column and row are moved inwards, so that all have one size.

    size: width and height of the picture in pixels. side: of a tile, width and height in the picture's pixels.
    overlap: share of a tile's side. Raises InputError, naming the picture, for more than a million tiles.
    """
    wide, high = (max(1, min(whole, round(part))) for whole, part in zip(size, side, strict=True))
    columns, rows = _starts(size[0], wide, overlap), _starts(size[1], high, overlap)
    if len(columns) * len(rows) > MOST_TILES:
        raise InputError(f"{name} would be cut into {len(columns) * len(rows):,} tiles: choose larger ones")
    return [(column, row, wide, high) for row in rows for column in columns]


def is_one_tile(size: tuple[int, int], tiling: Tiling) -> bool:
    """Whether a picture that is cut by pixels is small enough to be left whole."""
    return max(size) <= max(tiling.whole_up_to, tiling.pixels)


def _starts(length: int, side: int, overlap: float) -> range | list[int]:
    last, step = length - side, max(1, round(side * (1 - overlap)))
    return [*range(0, last, step), last]
