"""Answers for people and programs: a text table, JSON, CSV and GeoJSON of hits."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from search.columns import WINDOW
from search.places import TURNS, outline
from search.query import Hit, Query
from utils.errors import printable

EARTH = shapely.box(-180, -90, 180, 90)
CSV_COLUMNS = ("query", "rank", "score", "path", *WINDOW, "whole", "taken", "longitude", "latitude", "footprint")


def text_table(hits: Sequence[Hit]) -> str:
    """Aligned lines, the best first: rank, score, where on the Earth, when, path and window; nothing where none is."""
    lines = []
    for rank, hit in enumerate(hits, 1):
        place = centre(hit)
        where = f"{place[1]:10.5f} {place[0]:11.5f}" if place else ""
        taken = f"{hit.taken:%Y-%m-%d}" if hit.taken else ""
        lines.append((str(rank), f"{hit.score:.3f}", where, taken, printable(tile_name(hit))))
    heads = ("rank", "score", "  latitude   longitude", "taken", "picture")
    used = [i for i in range(len(heads)) if any(line[i] for line in lines)]
    widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]
    right = (0, 1)
    return "\n".join(
        "  ".join(line[i].rjust(widths[i]) if i in right else line[i].ljust(widths[i]) for i in used).rstrip()
        for line in ([heads, *lines] if lines else [])
    )


def as_json(queries: Sequence[Query], answers: Sequence[Sequence[Hit]]) -> str:
    """A list of hits, best first; of several queries a list of `{"query": ..., "results": [...]}`."""
    found = [[described(hit) for hit in hits] for hits in answers]
    if len(queries) == 1:
        return json.dumps(found[0], indent=2)
    return json.dumps([{"query": q.name, "results": hits} for q, hits in zip(queries, found, strict=True)], indent=2)


def described(hit: Hit) -> dict[str, Any]:
    """A hit as JSON: path, score and, where they are known, window, time and footprint (GeoJSON)."""
    said: dict[str, Any] = {"path": hit.file.path, "score": round(hit.score, 6)}
    if not hit.tile.whole:
        said["window"] = dict(zip(WINDOW, hit.tile.window, strict=True))
    if hit.taken:
        said["taken"] = hit.taken.isoformat()
    if (geometry := geojson_geometry(hit)) is not None:
        said["footprint"] = geometry
    return said


def as_csv(queries: Sequence[Query], answers: Sequence[Sequence[Hit]]) -> str:
    """A line a hit under a line of names; the footprint as WKT."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(CSV_COLUMNS)
    for query, hits in zip(queries, answers, strict=True):
        for rank, hit in enumerate(hits, 1):
            taken = hit.taken.isoformat() if hit.taken else ""
            place, shape = centre(hit) or ("", ""), _on_earth(hit)
            footprint = shapely.to_wkt(shape, 9) if shape is not None else ""
            line = (query.name, rank, f"{hit.score:.6f}", hit.file.path, *hit.tile.window, hit.tile.whole, taken)
            writer.writerow([*line, *place, footprint])
    return stream.getvalue()


def as_geojson(queries: Sequence[Query], answers: Sequence[Sequence[Hit]]) -> str:
    """A FeatureCollection (RFC 7946), a feature a hit; one without a place has no geometry."""
    features = []
    for query, hits in zip(queries, answers, strict=True):
        for rank, hit in enumerate(hits, 1):
            said = described(hit)
            geometry = said.pop("footprint", None)
            window = said.pop("window", {})  # flat, as a table of attributes takes it
            properties = {"query": query.name, "rank": rank, **said, **window}
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return json.dumps({"type": "FeatureCollection", "features": features})


def geojson_geometry(hit: Hit) -> dict[str, Any] | None:
    """The footprint with its outer ring counter-clockwise, in two at the antimeridian; None where no place is known."""
    shape = _on_earth(hit)
    return json.loads(shapely.to_geojson(shape)) if shape is not None else None


def centre(hit: Hit) -> tuple[float, float] | None:
    """Longitude and latitude of the middle of a footprint's bounds."""
    if not hit.tile.footprint:
        return None
    west, south, east, north = outline(hit.tile.footprint).bounds
    return round(((west + east) / 2 + 180) % 360 - 180, 9), round((south + north) / 2, 9)


def tile_name(hit: Hit) -> str:
    """Path, and the window of a tile, as a query names it (`query_vectors.IndexedTile`)."""
    return hit.file.path if hit.tile.whole else f"{hit.file.path}#{','.join(map(str, hit.tile.window))}"


def _on_earth(hit: Hit) -> BaseGeometry | None:
    """The footprint within longitudes of -180 to 180."""
    if not hit.tile.footprint:
        return None
    shape = outline(hit.tile.footprint)
    west, _, east, _ = shape.bounds
    if west < -180 or east > 180:
        parts = [shapely.intersection(translate(shape, turn), EARTH) for turn in TURNS]
        shape = shapely.union_all([part for part in parts if part.area or shape.area == 0])
    polygons = shapely.get_parts(shape)
    if polygons[0].geom_type != "Polygon":
        return shape
    turned = [orient(polygon) for polygon in polygons]
    return turned[0] if len(turned) == 1 else shapely.MultiPolygon(turned)
