"""Places on the Earth: footprints of tiles, and the box, radius or polygon that a query asks for.

Longitudes and latitudes are degrees of WGS 84. A shape that crosses the antimeridian goes on beyond 180 degrees, and
is looked at a turn to the west and to the east as well. Poles are no inner points of any shape here.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy import ndarray
from rasterio.warp import transform
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from utils.errors import InputError, reason, shown
from utils.files import read_text

TURNS = (-360.0, 0.0, 360.0)
POLYGON_BYTES = 64 * 2**20
LEAST_METRES = 110_500.0  # a degree of latitude has no fewer, at the equator

Bounds = tuple[float, float, float, float]  # west, south, east, north


def outline(corners: Sequence[tuple[float, float]]) -> BaseGeometry:
    """The point, line or polygon of (longitude, latitude) corners, whose neighbours are less than half a turn apart."""
    unwound, longitude = [], corners[0][0]
    for lon, lat in corners:
        longitude += (lon - longitude + 180) % 360 - 180
        unwound.append((round(longitude, 9), round(lat, 9)))
    if len(unwound) < 3:
        return shapely.LineString(unwound) if len(unwound) == 2 else shapely.Point(unwound[0])
    shape = shapely.Polygon(unwound)
    return shape if shape.area else shapely.Polygon(corners)  # a map of the whole Earth, its sides a full turn apart


@dataclass(frozen=True)
class Region:
    """Where a query looks: a tile belongs to it whose footprint it touches."""

    shape: BaseGeometry | None  # a box or polygon
    centre: tuple[float, float] | None = None  # of a circle
    metres: float = 0.0

    def condition(self) -> str:
        """What a row's bounds must fulfil, as SQL: all that touch the region do, some others too."""
        west, south, east, north = self._bounds()
        turned = (f"(east >= {west + turn!r} AND west <= {east + turn!r})" for turn in TURNS)
        return f"north >= {south!r} AND south <= {north!r} AND ({' OR '.join(turned)})"

    def touches(self, footprints: ndarray) -> ndarray:
        """Which of the shapes `[N]` the region touches, bool `[N]`."""
        if self.shape is not None:
            return np.logical_or.reduce([shapely.intersects(footprints, translate(self.shape, t)) for t in TURNS])
        return self._distances(footprints) <= self.metres

    def _bounds(self) -> Bounds:
        if self.shape is not None:
            return self.shape.bounds
        assert self.centre is not None
        longitude, latitude = self.centre
        high = self.metres / LEAST_METRES
        furthest = min(abs(latitude) + high, 90.0)
        wide = 180.0 if furthest >= 89.9 else min(high / math.cos(math.radians(furthest)), 180.0)
        return (longitude - wide, latitude - high, longitude + wide, latitude + high)

    def _distances(self, footprints: ndarray) -> ndarray:
        """Metres `[N]` from the centre to the nearest point of each shape, corners exactly on the ellipsoid."""
        assert self.centre is not None
        longitude, latitude = self.centre
        around = f"+proj=aeqd +lon_0={longitude!r} +lat_0={latitude!r} +datum=WGS84 +units=m"
        flat = shapely.transform(footprints, lambda xy: np.stack(transform("EPSG:4326", around, *xy.T), axis=1))
        return shapely.distance(flat, shapely.Point(0, 0))


def box(west: float, south: float, east: float, north: float) -> Region:
    """A box of longitudes and latitudes; west of more than east: over the antimeridian."""
    _check_degrees("box", (west, east), (south, north))
    if south > north:
        raise InputError(f"box: its south {south:g} is north of its north {north:g}; give WEST SOUTH EAST NORTH")
    return Region(shapely.box(west, south, east + 360 if west > east else east, north))


def circle(longitude: float, latitude: float, metres: float) -> Region:
    """All within so many metres of a point, on the ellipsoid."""
    _check_degrees("radius", (longitude,), (latitude,))
    if not 0 < metres < 2e7:
        raise InputError(f"radius: {metres:g} metres; give LONGITUDE LATITUDE METRES, of metres more than 0")
    return Region(None, (longitude, latitude), metres)


def polygon(given: str | Path | dict) -> Region:
    """The polygons of a GeoJSON file or its content, or a WKT text or file of one, in longitude and latitude."""
    named = given if isinstance(given, str | Path) else "a GeoJSON"
    shape = shapely.union_all(_polygons(_read(given), str(named)))
    west, south, east, north = shape.bounds
    if not -360 <= west <= east <= 540 or not -90 <= south <= north <= 90:
        raise InputError(f"polygon {shown(str(named))}: its coordinates are no longitudes and latitudes")
    return Region(shape)


def _read(given: str | Path | dict) -> Any:
    """The GeoJSON or WKT that was given, or its file's."""
    if isinstance(given, dict):
        return given
    text = str(given)
    if isinstance(given, Path) or not text.lstrip().upper().startswith(("POLYGON", "MULTIPOLYGON", "{")):
        text = read_text(given, "a polygon", POLYGON_BYTES)
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"polygon {shown(str(given))} is no GeoJSON: {reason(error)}") from None


def _polygons(content: Any, named: str) -> list[BaseGeometry]:
    """The valid polygons of a GeoJSON object or a WKT text."""
    try:
        if isinstance(content, str):
            shapes = [shapely.from_wkt(content)]
        elif content.get("type") == "FeatureCollection":
            shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in content["features"]]
        else:
            shapes = [shapely.from_geojson(json.dumps(content.get("geometry", content)))]
    except Exception as error:  # what a foreign file holds raises nearly anything
        raise InputError(f"polygon {shown(named)} is neither GeoJSON nor WKT: {reason(error)[:200]}") from None
    if not shapes or any(s is None or s.is_empty or s.geom_type not in ("Polygon", "MultiPolygon") for s in shapes):
        raise InputError(f"polygon {shown(named)}: expected polygons alone, at least one")
    for shape in shapes:
        if not shape.is_valid:
            raise InputError(f"polygon {shown(named)} is no valid one: {shapely.is_valid_reason(shape)}; mend it")
    return shapes


def _check_degrees(what: str, longitudes: Sequence[float], latitudes: Sequence[float]) -> None:
    for name, values, most in (("longitude", longitudes, 180), ("latitude", latitudes, 90)):
        for value in values:
            if not abs(value) <= most:  # a value that is no number too
                raise InputError(f"{what}: {name} {value:g} is not within -{most} to {most} degrees")
