"""Rasters of any size, read window by window through GDAL: GeoTIFF, COG, JPEG 2000 and large JPEG and PNG."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime

import numpy as np
import rasterio
from numpy import ndarray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window as RasterWindow

from dataset.deep_pictures import limits, scaled, stretched, turned
from dataset.pictures import PictureRule
from search.cutting import is_one_tile, windows
from search.georeference import footprints, georeference, metres_a_pixel
from search.headers import Header, parsed_time
from search.items import PictureFile, Tile, Tiling
from utils.errors import InputError, reason

# Files beside a raster (.ovr, .msk, .aux.xml) may be, or name, anything that GDAL has a driver for: those which lead
# elsewhere, on the disk or over a network, are left out. Drivers are registered once a process, so it is done here.
_LEADING_ELSEWHERE = (
    "VRT GTI STACIT STACTA TIL WMS WMTS WCS HTTP DAAS EEDA EEDAI PLMOSAIC ESRIC MRF Zarr netCDF HDF5 HDF5Image "
    "KMLSUPEROVERLAY DIMAP SAFE SENTINEL2 SNAP_TIFF PDS4 PDF GPKG Rasterlite MBTiles SQLite"
)
_OPTIONS = {
    "GDAL_CACHEMAX": 256,  # MB of decoded blocks, for the whole process
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # a folder of 100,000 files is not listed for each of them
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}
_BLOCK_BYTES = 2**29  # a block is decoded whole
_LEAST_VALID = 0.05  # of a tile's pixels; with fewer it has no data
# Limits of a stretch are taken from the whole raster where it or its overview is small, else from a grid of samples.
_WHOLE_SAMPLE, _OVERVIEW, _GRID, _SAMPLE = 2**22, 1024, 16, 64  # pixels; pixels a side; samples a side; pixels a side

logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # GDAL tells there what is raised too
warnings.simplefilter("ignore", NotGeoreferencedWarning)
with rasterio.Env(GDAL_SKIP=_LEADING_ELSEWHERE):
    pass


@contextmanager
def opened_raster(file: PictureFile, data: bytes | None, driver: str) -> Iterator[DatasetReader]:
    """A raster opened by one driver of GDAL, from its bytes where they are given; InputError where it cannot be."""
    with ExitStack() as stack:
        with _gdal(file.path):
            if data is None:
                dataset = rasterio.open(file.path, driver=driver)
            else:
                dataset = stack.enter_context(MemoryFile(data)).open(driver=driver)
            stack.enter_context(dataset)
        yield dataset


def is_plain(dataset: DatasetReader, path: str, most_pixels: int) -> bool:
    """Whether an open raster is a picture as any other: small, of 8 bits, without a place or missing pixels."""
    with _gdal(path):
        return (
            dataset.width * dataset.height <= most_pixels
            and (dataset.count in (1, 3) or ColorInterp.cyan in dataset.colorinterp)
            and set(dataset.dtypes) == {"uint8"}
            and dataset.nodata is None
            and dataset.transform.is_identity
            and not dataset.gcps[0]
        )


@contextmanager
def _gdal(where: str) -> Iterator[None]:
    """What GDAL does with our options; its errors become InputError, which names file and window."""
    try:
        with rasterio.Env(**_OPTIONS):
            yield
    except InputError:
        raise
    except Exception as error:  # they are of kinds that rasterio keeps to itself
        first = error.__cause__ if isinstance(error.__cause__, Exception) else error  # "see previous exception"
        raise InputError(f"cannot read the raster {where}: {reason(first)}") from None


class Raster:
    """An open raster as `OpenPicture`; its bands are stretched alike in all its tiles."""

    tiles: list[Tile]
    taken: datetime | None
    remarks: list[str]

    def __init__(self, dataset: DatasetReader, path: str, tiling: Tiling, rule: PictureRule, header: Header) -> None:
        self.dataset, self.path, self.rule = dataset, path, rule
        self.limits: list[tuple[float, float]] | None = None  # of the stretch, once known
        self.remarks = []
        with _gdal(path):
            self.bands, self.palette = _bands(dataset, path, rule)
            self.distinct = sorted(set(self.bands))  # each read once
            _check_blocks(dataset, path, self.distinct)
            flags = dataset.mask_flag_enums
            bits = int(dataset.tags(self.distinct[0], ns="IMAGE_STRUCTURE").get("NBITS", 8))
            if bits < 8 and self.palette is None:  # values of 0 to 15, say
                self.limits = [(0, 2**bits - 1)] * 3
            self.declares_no_data = any(MaskFlags.all_valid not in flags[band - 1] for band in self.distinct)
            self.taken = header.taken or parsed_time(dataset.tags().get("TIFFTAG_DATETIME"))
            self._cut(tiling, header)

    def _cut(self, tiling: Tiling, header: Header) -> None:
        size = (self.dataset.width, self.dataset.height)
        self.scale = (1.0, 1.0)  # pixels given for a pixel of the file, along columns and rows
        side, on_ground = (float(tiling.pixels), float(tiling.pixels)), False
        place, wrong = None, "it has no georeference"
        try:
            place = georeference(self.dataset)
            if place and tiling.metres is not None:
                wide, high = metres_a_pixel(place, size)
                side, on_ground = (tiling.metres / wide, tiling.metres / high), True
                most = min(tiling.pixels, max(side))
                self.scale = (most / side[0], most / side[1])
        except InputError as error:
            place, wrong = None, str(error)
            self.remarks.append(f"{self.path} has no footprint: {wrong}")
        whole = not on_ground and is_one_tile(size, tiling)
        if tiling.metres is not None and not on_ground and not whole:
            self.remarks.append(f"{self.path} is cut into tiles of {tiling.pixels} pixels, not by metres: {wrong}")
        cut = [(0, 0, *size)] if whole else windows(size, side, tiling.overlap, self.path)
        known = footprints(place, cut) if place else [(header.point,) if header.point else None] * len(cut)
        if place and not any(known):
            self.remarks.append(f"{self.path} has no footprint: its coordinate system gives no longitude and latitude")
        self.orientation = 1 if place else header.orientation
        self.tiles = [Tile(window, len(cut) == 1, footprint) for window, footprint in zip(cut, known, strict=True)]

    def read(self, tile: Tile) -> ndarray | None:
        """Pixels, uint8 `[H, W, 3]`, 0 where there are no data; None where less than a twentieth of them has any."""
        wide, high = (max(1, round(side * scale)) for side, scale in zip(tile.window[2:], self.scale, strict=True))
        with _gdal("{} at column {}, row {}, {} x {} pixels".format(self.path, *tile.window)):
            values, valid = self._values(RasterWindow(*tile.window), (high, wide))
            if valid.mean() < _LEAST_VALID:
                return None
            pixels = self._pixels(values)
        pixels = np.where(valid[:, :, None], pixels, np.uint8(0))
        return np.ascontiguousarray(turned(pixels, self.orientation))

    def _values(self, window: RasterWindow | None, shape: tuple[int, int]) -> tuple[ndarray, ndarray]:
        """The three bands, or the indices of a palette, `[H, W, C]`, and which pixels have data, `[H, W]`."""
        way = Resampling.nearest if self.palette is not None else Resampling.average
        many = (len(self.distinct), *shape)
        read = self.dataset.read(self.distinct, window=window, out_shape=many, resampling=way)
        valid = self.dataset.dataset_mask(window=window, out_shape=shape) > 0
        valid &= np.isfinite(read).all(axis=0)
        if not self.declares_no_data and len(self.distinct) == 3:
            valid &= read.any(axis=0)  # black in every band: the margin of a raster that does not say so
        if self.palette is not None:
            valid &= self.palette[read[0], 3] > 0
        return read[[self.distinct.index(band) for band in self.bands]].transpose(1, 2, 0), valid

    def _pixels(self, values: ndarray) -> ndarray:
        if self.palette is not None:
            return self.palette[values[:, :, 0], :3]
        if self.limits is None:
            if values.dtype == np.uint8 or self.rule.deep.startswith("divide"):
                return scaled(values, self.rule.deep)
            self.limits = limits(self._sample(), self.rule.deep)
        return stretched(values, self.limits)

    def _sample(self) -> ndarray:
        """Values `[N, 3]` from all over the raster, of pixels that have data."""
        width, height = self.dataset.width, self.dataset.height
        if width * height <= _WHOLE_SAMPLE or self.dataset.overviews(self.distinct[0]):
            share = 1.0 if width * height <= _WHOLE_SAMPLE else min(1.0, _OVERVIEW / max(width, height))
            values, valid = self._values(None, (max(1, round(height * share)), max(1, round(width * share))))
            return values[valid]
        columns, rows = (np.linspace(0, max(0, side - _SAMPLE), _GRID).astype(int) for side in (width, height))
        samples = []
        for row in rows.tolist():
            for column in columns.tolist():
                wide, high = min(_SAMPLE, width), min(_SAMPLE, height)
                values, valid = self._values(RasterWindow(column, row, wide, high), (high, wide))
                samples.append(values[valid])
        return np.concatenate(samples)


def _bands(dataset: DatasetReader, path: str, rule: PictureRule) -> tuple[Sequence[int], ndarray | None]:
    """The bands to take as red, green and blue, from 1 on; and the colours `[N, 4]` of an only band's palette."""
    meaning = dataset.colorinterp
    if any("complex" in kind for kind in dataset.dtypes):
        raise InputError(f"{path} has complex numbers, which are no picture")
    if rule.bands:
        if max(rule.bands) > dataset.count:
            raise InputError(f"{path} has {dataset.count} bands, 'bands' names {max(rule.bands)}")
        return rule.bands, None
    if meaning[0] == ColorInterp.palette and dataset.dtypes[0] in ("uint8", "uint16"):
        colours = np.zeros((2 ** (8 * np.dtype(dataset.dtypes[0]).itemsize), 4), np.uint8)
        for index, colour in dataset.colormap(1).items():
            colours[index] = colour
        return (1,), colours
    colours_given = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in meaning for colour in colours_given):
        return tuple(meaning.index(colour) + 1 for colour in colours_given), None
    shown = [band for band, kind in enumerate(meaning, 1) if kind != ColorInterp.alpha] or [1]
    return (tuple(shown[:3]) if len(shown) > 2 else (shown[0],) * 3), None


def _check_blocks(dataset: DatasetReader, path: str, bands: Sequence[int]) -> None:
    for band in bands:
        high, wide = dataset.block_shapes[band - 1]
        if high * wide * np.dtype(dataset.dtypes[band - 1]).itemsize * dataset.count > _BLOCK_BYTES:
            raise InputError(f"{path} is stored in blocks of {wide} x {high} pixels, too large: write it tiled")
