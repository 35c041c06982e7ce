"""What a search is made of: a picture file that was found, the tiles it is cut into, and how it is cut."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from numpy import ndarray

STRETCH = "percentile 2-98"  # of more than 8 bits a channel, where nothing else is said

Window = tuple[int, int, int, int]  # column, row, width, height in the file's pixels


@dataclass(frozen=True)
class PictureFile:
    """A picture or raster on the disk, or a member of an archive; `size` and `modified` tell whether it changed."""

    path: str  # absolute; of a member ARCHIVE/MEMBER
    size: int  # bytes, of a member unpacked
    modified: int  # nanoseconds since 1970, of a member its archive's
    archive: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class Tiling:
    """How a large picture is cut: squares of `pixels`, or of `metres` on the ground, that overlap by a share."""

    pixels: int = 512
    metres: float | None = None  # where given, of georeferenced rasters
    overlap: float = 0.25  # of a square's side
    whole_up_to: int = 1024  # a picture whose longer side has no more pixels than this is one tile


@dataclass(frozen=True)
class Tile:
    """A part of a picture file, or the whole of it, with its place on the Earth where that is known."""

    window: Window
    whole: bool  # the window is the whole picture
    # Corners (longitude, latitude) in degrees, WGS 84, not closed; a single one where only a point is known; or None.
    footprint: tuple[tuple[float, float], ...] | None


class OpenPicture(Protocol):
    """An opened picture file: its tiles are known from its header, pixels are read tile by tile."""

    tiles: list[Tile]
    taken: datetime | None  # when the picture was taken, with a time zone (UTC where the file names none)
    remarks: list[str]  # lines on what was not as asked: no footprint, tiles of pixels instead of metres

    def read(self, tile: Tile) -> ndarray | None:
        """Pixels, uint8 `[H, W, 3]`; None where the tile has no data. Raises InputError naming file and window."""
