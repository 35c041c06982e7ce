"""Answers: table, JSON, CSV, GeoJSON and contact sheet of the same hits."""

import csv
import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from PIL import Image
from small_index import square

from search.answers import as_csv, as_geojson, as_json, described, text_table
from search.contact_sheet import SIDE, draw_contact_sheet
from search.items import PictureFile, Tile
from search.query import Hit, Query
from utils.errors import InputError

DAY = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
QUERY = Query(texts=(("a river", 1.0),))


def hit(path="/p/a.tif", score=0.5, *, window=None, footprint=None, taken=None):
    tile = Tile(window or (0, 0, 8, 8), window is None, footprint)
    return Hit(PictureFile(path, 1, 1), tile, taken, score)


def geometry_of(footprint):
    """The geometry that a hit's feature has."""
    return json.loads(as_geojson([QUERY], [[hit(footprint=footprint)]]))["features"][0]["geometry"]


def test_a_table_is_aligned_and_leaves_out_what_no_hit_has():
    hits = [hit("/p/a.tif", 0.61234, window=(512, 0, 512, 512)), hit("/p/b.tif", -0.05)]
    assert text_table(hits).splitlines() == [
        "rank   score  picture",
        "   1   0.612  /p/a.tif#512,0,512,512",
        "   2  -0.050  /p/b.tif",
    ]
    assert text_table([]) == ""


def test_a_table_shows_place_and_day_where_they_are_known():
    head, first, second = text_table([hit(footprint=square(-170, -45), taken=DAY), hit()]).splitlines()
    assert head == "rank  score    latitude   longitude  taken       picture"
    assert first == "   1  0.500   -44.50000  -169.50000  2026-05-01  /p/a.tif"
    assert second.split() == ["2", "0.500", "/p/a.tif"] and second.index("/p") == first.index("/p")


def test_a_name_with_a_newline_or_an_escape_stays_on_its_line():
    table = text_table([hit("/p/two\nlines\x1b[31m.tif")])
    assert table.splitlines()[1].endswith(r"/p/two\nlines\x1b[31m.tif")


def test_json_is_a_list_best_first_with_what_is_known():
    known = hit(window=(1, 2, 3, 4), footprint=((10.0, 50.0),), taken=DAY, score=0.75)
    best, other = json.loads(as_json([QUERY], [[known, hit("/p/two\nlines ☃", 0.5)]]))
    assert best == {
        "path": "/p/a.tif",
        "score": 0.75,
        "window": {"column": 1, "row": 2, "width": 3, "height": 4},
        "taken": "2026-05-01T12:30:00+00:00",
        "footprint": {"type": "Point", "coordinates": [10.0, 50.0]},
    }
    assert other == {"path": "/p/two\nlines ☃", "score": 0.5}
    assert json.loads(as_json([QUERY], [[]])) == []


def test_json_of_several_queries_names_each():
    queries = [QUERY, Query(texts=(("a lake", 1.0), ("trees", 2.0)), minus=(("snow", 0.5),))]
    assert json.loads(as_json(queries, [[hit()], []])) == [
        {"query": "a river", "results": [{"path": "/p/a.tif", "score": 0.5}]},
        {"query": "a lake + trees - snow", "results": []},
    ]


def test_csv_gives_every_name_and_place_back():
    hits = [hit('/p/two\nlines,"quoted".tif', window=(1, 2, 3, 4), footprint=square(179.5, 0), taken=DAY), hit()]
    first, second = csv.DictReader(io.StringIO(as_csv([QUERY], [hits]), newline=""))
    assert (first["path"], first["query"], first["rank"]) == ('/p/two\nlines,"quoted".tif', "a river", "1")
    assert [first[name] for name in ("column", "row", "width", "height", "whole")] == ["1", "2", "3", "4", "False"]
    assert (float(first["longitude"]), float(first["latitude"])) == (-180, 0.5)
    both_sides = shapely.union(shapely.box(179.5, 0, 180, 1), shapely.box(-180, 0, -179.5, 1))
    assert shapely.from_wkt(first["footprint"]).equals(both_sides)
    assert (second["footprint"], second["taken"], second["longitude"]) == ("", "", "")


def test_geojson_has_a_feature_a_hit_with_its_properties():
    hits = [hit(window=(1, 2, 3, 4), footprint=square(10, 50), taken=DAY), hit()]
    placed, unplaced = json.loads(as_geojson([QUERY], [hits]))["features"]
    assert placed["properties"] == {
        "query": "a river", "rank": 1, "path": "/p/a.tif", "score": 0.5, "taken": "2026-05-01T12:30:00+00:00",
        "column": 1, "row": 2, "width": 3, "height": 4,
    }  # fmt: skip
    assert placed["geometry"]["type"] == "Polygon"
    assert unplaced["geometry"] is None and unplaced["properties"]["rank"] == 2


@pytest.mark.parametrize("corners", [square(10, 50), square(10, 50)[::-1]])
def test_rings_are_closed_and_run_counter_clockwise(corners):
    ring = geometry_of(corners)["coordinates"][0]
    assert ring[0] == ring[-1] and len(ring) == 5
    assert shapely.LinearRing(ring).is_ccw


@pytest.mark.parametrize("west", [179.5, -180.5])
@pytest.mark.parametrize("turned", [1, -1])
def test_a_footprint_across_the_antimeridian_is_cut_in_two(west, turned):
    corners = [((lon + 180) % 360 - 180, lat) for lon, lat in square(west, 0)][::turned]
    geometry = geometry_of(tuple(corners))
    assert geometry["type"] == "MultiPolygon"
    polygons = [shapely.Polygon(rings[0]) for rings in geometry["coordinates"]]
    assert sorted(polygon.bounds for polygon in polygons) == [(-180, 0, -179.5, 1), (179.5, 0, 180, 1)]
    assert all(polygon.exterior.is_ccw for polygon in polygons)


def test_a_footprint_that_ends_at_the_antimeridian_is_one_polygon():
    for west in (179, -180):
        geometry = geometry_of(square(west, 0))
        assert geometry["type"] == "Polygon"
        assert shapely.Polygon(geometry["coordinates"][0]).bounds == (west, 0, west + 1, 1)


def test_a_point_and_a_line_are_features_too():
    assert geometry_of(((190.0, 5.0),)) == {"type": "Point", "coordinates": [-170.0, 5.0]}
    assert geometry_of(((1.0, 5.0), (2.0, 5.0)))["type"] == "LineString"


def test_geojson_is_read_by_gdal(tmp_path):
    from rasterio import features

    geometry = geometry_of(square(10, 50))
    assert features.bounds(geometry) == (10, 50, 11, 51)
    drawn = features.rasterize([geometry], out_shape=(4, 4), transform=(1, 0, 9, 0, -1, 53))
    assert drawn.sum() == 1 and drawn[2, 1] == 1


def test_described_leaves_out_the_window_of_a_whole_picture():
    assert described(hit()) == {"path": "/p/a.tif", "score": 0.5}


# ---- the contact sheet ----


def coloured(shown):
    """A tile of the colour that its score says."""
    return np.full((30, 60, 3), round(shown.score * 100), dtype=np.uint8)


def test_a_contact_sheet_has_each_tile_in_its_place(tmp_path):
    file = tmp_path / "sheet.png"
    draw_contact_sheet(file, [("a river", [hit(f"/p/{i}.tif", i / 10) for i in range(7)])], coloured)
    sheet = np.asarray(Image.open(file))
    for i in range(7):
        places = (sheet == 10 * i).all(axis=2).sum()
        assert places >= SIDE * SIDE // 2 - SIDE  # a tile twice as wide as high fills half its square
    assert sheet.shape[1] > 5 * SIDE
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_contact_sheet_of_nothing_and_of_long_strange_names_is_drawn(tmp_path):
    draw_contact_sheet(tmp_path / "none.png", [("a river", [])], coloured)
    strange = [hit("/p/" + "long_name\n体育场\U0001f3df" * 50, 0.3), hit("/p/two\nlines.tif", 0.2)]
    draw_contact_sheet(tmp_path / "long.png", [("a river " * 200, strange)], coloured)
    assert Image.open(tmp_path / "none.png").width == Image.open(tmp_path / "long.png").width


def test_a_tile_that_cannot_be_read_leaves_no_half_sheet(tmp_path):
    def broken(shown):
        raise InputError(f"cannot read the picture {shown.file.path}")

    with pytest.raises(InputError, match=r"cannot read the picture /p/a.tif"):
        draw_contact_sheet(tmp_path / "sheet.png", [("a river", [hit()])], broken)
    assert list(tmp_path.iterdir()) == []


def test_several_queries_have_a_sheet_together(tmp_path):
    file = tmp_path / "sheet.jpg"
    draw_contact_sheet(file, [("a river", [hit()]), ("a lake", []), ("a road", [hit(), hit()])], coloured)
    both = Image.open(file)
    draw_contact_sheet(tmp_path / "one.png", [("a road", [hit(), hit()])], coloured)
    assert both.format == "JPEG"
    assert both.height > 2 * Image.open(tmp_path / "one.png").height - SIDE
