"""A picture file is opened, its tiles known from its header, its pixels read tile by tile."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from numpy import ndarray
from PIL import Image
from rasterio.io import DatasetReader

from dataset.pictures import USUAL, PictureRule, decode_picture, read_file
from search.archives import read_member
from search.cutting import is_one_tile, windows
from search.exif import Exif, read_exif
from search.items import OpenPicture, PictureFile, Tile, Tiling
from search.rasters import Raster, opened_raster
from utils.errors import InputError, reason
from utils.files import PICTURE_FORMATS

DEEP_RULE = "percentile 2-98"  # what becomes of more than 8 bits a channel where the rule refuses them
DECODED_PIXELS = 2**26  # a picture of no more is decoded at once, 200 MB
_TIFF, _JPEG_2000 = "GTiff", "JP2OpenJPEG"  # GDAL's drivers
_DRIVERS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _TIFF),
    **dict.fromkeys((b"\0\0\0\x0c", b"\xff\x4f\xff\x51"), _JPEG_2000),
    **{b"\xff\xd8\xff" + bytes([marker]): "JPEG" for marker in range(256)},
    b"\x89PNG": "PNG",
}
_WORLD_FILES = {"JPEG": (".jgw", ".jpgw", ".wld"), "PNG": (".pgw", ".pngw", ".wld")}


@contextmanager
def open_picture(file: PictureFile, tiling: Tiling, rule: PictureRule = USUAL) -> Iterator[OpenPicture]:
    """A picture or raster, opened; `InputError` naming it where it cannot be.

    Georeferenced, large and deep files are read window by window, others are decoded at once, as everywhere in PIR.
    Of a raster of more than 8 bits a channel each band is stretched by the rule, `percentile 2-98` where the rule
    refuses such: once for the raster, so that its tiles are alike. Files beside an archive's member are not looked at.
    Not for several threads at once: each opens its own.
    """
    rule = rule._replace(deep=DEEP_RULE) if rule.deep == "refuse" else rule
    data = read_member(file.archive, file.member) if file.archive and file.member else None
    driver = _DRIVERS.get(data[:4] if data is not None else _head(file.path))
    exif = read_exif(file.path if data is None else io.BytesIO(data))
    if driver in (_TIFF, _JPEG_2000) or (driver and _needs_raster(file, data, driver)):
        with opened_raster(file, data, driver) as dataset:
            if driver not in (_TIFF, _JPEG_2000) or not _is_plain(dataset):
                yield Raster(dataset, file.path, tiling, rule, exif)
                return
    yield _Decoded(read_file(file.path) if data is None else data, file.path, tiling, rule, exif)


class _Decoded:
    """A picture that is decoded at once, as `OpenPicture`."""

    tiles: list[Tile]
    taken: datetime | None
    remarks: list[str]

    def __init__(self, data: bytes, path: str, tiling: Tiling, rule: PictureRule, exif: Exif) -> None:
        self.data, self.path, self.rule, self.taken = data, path, rule, exif.taken
        self.pixels: ndarray | None = None
        size = _size(io.BytesIO(data), path)
        if exif.orientation in (5, 6, 7, 8):  # on its side
            size = size[::-1]
        whole = is_one_tile(size, tiling)
        cut = [(0, 0, *size)] if whole else windows(size, (tiling.pixels,) * 2, tiling.overlap, path)
        self.tiles = [Tile(window, len(cut) == 1, (exif.point,) if exif.point else None) for window in cut]
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
            return stream.read(4)
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}") from None


def _size(source: str | io.BytesIO, path: str) -> tuple[int, int]:
    """Width and height, as stored."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(source, formats=PICTURE_FORMATS) as image:
            return image.size
    except Exception as error:  # a file of another kind, or a damaged one, raises nearly anything
        raise InputError(f"cannot read the picture {path}: {reason(error)}") from None


def _needs_raster(file: PictureFile, data: bytes | None, driver: str) -> bool:
    """Whether a JPEG or PNG is large, or has a file beside it that says where it lies."""
    stem = os.path.splitext(file.path)[0]
    beside = [file.path + ".aux.xml", *(stem + suffix for suffix in _WORLD_FILES[driver])]
    if data is None and any(os.path.exists(name) for name in beside):
        return True
    try:
        width, height = _size(file.path if data is None else io.BytesIO(data), file.path)
    except InputError as error:
        return "DecompressionBomb" in str(error)
    return width * height > DECODED_PIXELS


def _is_plain(dataset: DatasetReader) -> bool:
    """Whether a TIFF or JPEG 2000 is a picture as any other: small, of 8 bits, without a place or missing pixels."""
    return (
        dataset.width * dataset.height <= DECODED_PIXELS
        and dataset.count in (1, 3)
        and set(dataset.dtypes) == {"uint8"}
        and dataset.nodata is None
        and dataset.transform.is_identity
        and not dataset.gcps[0]
    )
