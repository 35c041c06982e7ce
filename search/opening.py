"""A picture file is opened, its tiles known from its header, its pixels read tile by tile."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from numpy import ndarray

from dataset.pictures import USUAL, PictureRule, decode_picture, read_file
from search.archives import read_member
from search.cutting import is_one_tile, windows
from search.headers import Header, read_header
from search.items import STRETCH, OpenPicture, PictureFile, Tile, Tiling
from search.rasters import Raster, is_plain, opened_raster
from utils.errors import InputError

DECODED_PIXELS = 2**26  # a picture of no more is decoded at once, 200 MB
WHOLE_PIXELS = 8192  # the longest side of a picture that is looked for
_MAPS = ("GTiff", "JP2OpenJPEG")  # GDAL's drivers for what mostly has a place on the Earth
_DRIVERS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "GTiff"),
    **dict.fromkeys((b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51"), "JP2OpenJPEG"),
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
}  # by a file's first bytes
_WORLD_FILES = (".aux.xml", ".jgw", ".jpgw", ".pgw", ".pngw", ".wld")  # which give a JPEG or PNG a place


@contextmanager
def open_picture(file: PictureFile, tiling: Tiling, rule: PictureRule = USUAL) -> Iterator[OpenPicture]:
    """A picture or raster, opened; `InputError` naming it where it cannot be.

    Georeferenced, large and deep files are read window by window, others are decoded at once, as everywhere in PIR.
    Of a raster of more than 8 bits a channel each band is stretched by the rule, `percentile 2-98` where the rule
    refuses such: once for the raster, so that its tiles are alike. Files beside an archive's member are not looked at.
    Not for several threads at once: each opens its own.
    """
    rule = rule._replace(deep=STRETCH) if rule.deep == "refuse" else rule
    data = read_member(file.archive, file.member) if file.archive and file.member else None
    head = _head(file.path) if data is None else data
    driver = next((name for start, name in _DRIVERS.items() if head.startswith(start)), None)
    header = read_header(file.path if data is None else io.BytesIO(data))
    if driver in _MAPS or (driver and (_is_large(header) or (data is None and _has_world_file(file.path)))):
        with opened_raster(file, data, driver) as dataset:
            if driver not in _MAPS or header.size is None or not is_plain(dataset, file.path, DECODED_PIXELS):
                yield Raster(dataset, file.path, tiling, rule, header)
                return
    yield _Decoded(read_file(file.path) if data is None else data, file.path, tiling, rule, header)


class _Decoded:
    """A picture that is decoded at once, as `OpenPicture`."""

    tiles: list[Tile]
    taken: datetime | None
    remarks: list[str]

    def __init__(self, data: bytes, path: str, tiling: Tiling, rule: PictureRule, header: Header) -> None:
        self.data, self.path, self.rule, self.taken = data, path, rule, header.taken
        self.pixels: ndarray | None = None
        if header.size is None:
            raise InputError(f"cannot read the picture {path}: {header.unreadable}")
        size = header.size[::-1] if header.orientation in (5, 6, 7, 8) else header.size  # upright
        whole = is_one_tile(size, tiling)
        cut = [(0, 0, *size)] if whole else windows(size, (tiling.pixels,) * 2, tiling.overlap, path)
        self.tiles = [Tile(window, len(cut) == 1, (header.point,) if header.point else None) for window in cut]
        unmet = tiling.metres is not None and not whole
        by_pixels = f"{path} is cut into tiles of {tiling.pixels} pixels, not by metres: it has no georeference"
        self.remarks = [by_pixels] if unmet else []

    def read(self, tile: Tile) -> ndarray | None:
        column, row, wide, high = tile.window
        if self.pixels is None:
            self.pixels = decode_picture(self.data, self.path, self.rule)
            self.data = b""
        return self.pixels[row : row + high, column : column + wide].copy()


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(6)
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}") from None


def _is_large(header: Header) -> bool:
    if header.size is None:
        return "DecompressionBomb" in header.unreadable
    return header.size[0] * header.size[1] > DECODED_PIXELS


def _has_world_file(path: str) -> bool:
    starts, ends = (path, os.path.splitext(path)[0]), (*_WORLD_FILES, *(end.upper() for end in _WORLD_FILES))
    return any(os.path.exists(start + end) for start in starts for end in ends)


def whole_picture(path: str | Path, rule: PictureRule = USUAL) -> ndarray:
    """The pixels of a picture or raster, not cut, uint8 `[H, W, 3]`, shown by the same rule as an index's.

    Raises InputError where it cannot be read, is too large to be looked at as a whole or has no data.
    """
    absolute = os.path.abspath(path)
    try:
        found = os.stat(absolute)
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}") from None
    file = PictureFile(absolute, found.st_size, found.st_mtime_ns)
    with open_picture(file, Tiling(pixels=WHOLE_PIXELS, whole_up_to=WHOLE_PIXELS), rule) as picture:
        if len(picture.tiles) > 1:
            raise InputError(f"{path} has a side of more than {WHOLE_PIXELS} pixels: cut out what you look for")
        pixels = picture.read(picture.tiles[0])
    if pixels is None:
        raise InputError(f"{path} has no data")
    return pixels
