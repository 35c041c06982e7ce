"""Where on the Earth the pixels of a georeferenced raster lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy import ndarray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import GCPTransformer
from rasterio.warp import transform

from search.items import Window
from utils.errors import InputError

Footprint = tuple[tuple[float, float], ...]
_WGS84 = "EPSG:4326"
_EQUATOR, _FLATTENING = 6378137.0, 1 / 298.257223563  # metres; the ellipsoid's
_ALMOST = 1e-6  # degrees, by which rounding takes a pole too far


@dataclass(frozen=True)
class Georeference:
    """A raster's coordinate system, and how pixels lie in it: an affine transform or ground control points."""

    crs: CRS
    affine: Affine | None
    control_points: Sequence[GroundControlPoint] = ()

    def degrees(self, pixels: ndarray) -> ndarray:
        """Longitudes and latitudes `[N, 2]` of places `[N, 2]`, column and row, in the raster.

        Raises InputError where one of them has none.
        """
        columns, rows = pixels.T.astype(np.float64)
        try:
            if self.affine is not None:
                a, b, c, d, e, f = self.affine[:6]
                xs, ys = a * columns + b * rows + c, d * columns + e * rows + f
            else:
                with GCPTransformer(self.control_points) as fitted:
                    xs, ys = fitted.xy(rows, columns, offset="ul")
            longitudes, latitudes = transform(self.crs, _WGS84, np.asarray(xs), np.asarray(ys))
        except Exception:  # GDAL's and PROJ's own errors, of kinds that rasterio keeps to itself
            raise InputError("its coordinate system cannot be brought to longitude and latitude") from None
        return np.stack([longitudes, latitudes], axis=1)


def georeference(dataset: DatasetReader) -> Georeference | None:
    """An open raster's, by its transform or, where it has none, by its ground control points; None without.

    Raises InputError where there is one that cannot be understood.
    """
    try:
        crs, affine = dataset.crs, dataset.transform
        points, points_crs = dataset.gcps
    except Exception:  # as above
        raise InputError("its coordinate system cannot be understood") from None
    if crs and not affine.is_identity:
        if affine.is_degenerate or not all(map(math.isfinite, affine)):
            raise InputError("its georeference maps the whole raster on a line or nowhere")
        return Georeference(crs, affine)
    if points_crs and len(points) >= 3:
        return Georeference(points_crs, None, points)
    return None


def footprints(place: Georeference, windows: Sequence[Window]) -> list[Footprint | None]:
    """The corners of each window in degrees, from its upper left one along its upper side; None where there are none.

    They lie together: of a window across the 180th meridian some longitudes are beyond 180 or -180.
    """
    corners = np.array(
        [[(c, r), (c + w, r), (c + w, r + h), (c, r + h), (c + w / 2, r + h / 2)] for c, r, w, h in windows]
    )  # [N, 5, 2], the middle last
    try:
        degrees = place.degrees(corners.reshape(-1, 2)).reshape(-1, 5, 2)
    except InputError:  # one place outside of what the projection knows is enough: each window by itself
        degrees = np.full(corners.shape, np.nan)
        for number, own in enumerate(corners):
            try:
                degrees[number] = place.degrees(own)
            except InputError:
                continue
    return [_footprint(own) for own in degrees]


def metres_a_pixel(place: Georeference, size: tuple[int, int]) -> tuple[float, float]:
    """Width and height of a pixel on the ground, in metres, in the middle of a raster of `size` pixels.

    Raises InputError where it is not to be told.
    """
    column, row = size[0] / 2, size[1] / 2
    far = max(1.0, min(size) / 100)  # pixels
    here, right, below = place.degrees(np.array([(column, row), (column + far, row), (column, row + far)]))
    lengths = tuple(_metres(here, there) / far for there in (right, below))
    if not all(math.isfinite(length) and length > 0 for length in lengths):
        raise InputError("its pixels have no size on the ground")
    return lengths[0], lengths[1]


def _metres(here: ndarray, there: ndarray) -> float:
    """The distance of two near places, `[2]` in degrees each, on the ellipsoid."""
    latitude = math.radians(float(here[1] + there[1]) / 2)
    squared = _FLATTENING * (2 - _FLATTENING)
    root = math.sqrt(1 - squared * math.sin(latitude) ** 2)
    east = math.radians((float(there[0] - here[0]) + 180) % 360 - 180) * math.cos(latitude) * _EQUATOR / root
    north = math.radians(float(there[1] - here[1])) * _EQUATOR * (1 - squared) / root**3
    return math.hypot(east, north)


def _footprint(degrees: ndarray) -> Footprint | None:
    """The four corners of `[5, 2]`, corners and middle; None where they are not on the Earth."""
    if not np.isfinite(degrees).all() or np.abs(degrees).max() > 360:
        return None
    longitudes, latitudes = degrees.T
    if np.abs(latitudes).max() > 90 + _ALMOST:
        return None
    corners, middle = longitudes[:4], longitudes[4]
    if not corners.min() <= middle <= corners.max():  # across the 180th meridian
        corners = middle + (corners - middle + 180) % 360 - 180
    turn = 360 * round(middle / 360)  # of rasters that count longitudes to 360
    points = np.stack([corners - turn, latitudes[:4].clip(-90, 90)], axis=1)
    return tuple((float(longitude), float(latitude)) for longitude, latitude in points)
