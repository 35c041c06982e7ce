"""Queries: weights, what is not wanted, places, dates, folders, near-duplicates, and what cannot be asked."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from small_index import SmallModel, axis, index_of, row, square

from search.places import box, circle, outline, polygon
from search.query import Query, answer, moment
from search.query_vectors import IndexedTile
from utils.errors import InputError

RIVER, STADIUM, SNOW = (("river", 1.0),), (("stadium", 1.0),), (("snow", 0.5),)


@pytest.fixture
def model(tmp_path):
    return SmallModel(tmp_path)


@pytest.fixture
def ask(tmp_path, model):
    """A function that puts tiles in an index and gives the names of those that answer a query, best first."""

    def asked(tiles, query):
        index = index_of(tmp_path, *tiles)
        return [hit.file.path.rsplit("/")[-1] for hit in answer(index, model, [query])[0]]

    return asked


def placed(**footprints):
    """Tiles of different files and places, each a little further from a river than the one before."""
    return [
        (row(f"/p/{name}", footprint=place), axis(0, i / 100)) for i, (name, place) in enumerate(footprints.items())
    ]


def query(**said):
    return Query(**({"texts": RIVER, "fold": False} | said))


# ---- what is looked for ----


def test_texts_find_the_tiles_nearest_to_them_with_their_cosine(tmp_path, model):
    index = index_of(tmp_path, (row("/p/other"), axis(4)), (row("/p/river"), axis(0, 0.2)))
    best, other = answer(index, model, [Query(texts=RIVER)])[0]
    assert (best.file.path, other.file.path) == ("/p/river", "/p/other")
    assert best.score == pytest.approx(math.cos(0.2), abs=1e-6)
    assert other.score == pytest.approx(0, abs=1e-6)
    assert best.taken == datetime(2024, 5, 1, tzinfo=UTC)
    assert best.tile.window == (0, 0, 8, 8) and best.tile.whole and best.tile.footprint is None


def test_weights_turn_a_query_towards_one_of_its_parts(ask, tmp_path, model):
    tiles = [(row("/p/river"), axis(0)), (row("/p/stadium"), axis(1))]
    index = index_of(tmp_path, *tiles)
    for weights, first in (((1, 3), "/p/stadium"), ((3, 1), "/p/river")):
        hits = answer(index, model, [Query(texts=(("river", weights[0]), ("stadium", weights[1])))])[0]
        assert hits[0].file.path == first
        assert hits[0].score == pytest.approx(3 / math.sqrt(10), abs=1e-6)


def test_what_is_not_wanted_moves_to_the_end(ask):
    both = (axis(0) + axis(2)) / math.sqrt(2)
    tiles = [(row("/p/snowy_river"), both), (row("/p/river"), axis(0, 0.9))]
    assert ask(tiles, query(minus=SNOW)) == ["river", "snowy_river"]


def test_without_minus_the_same_query_has_it_first(ask):
    both = (axis(0) + axis(2)) / math.sqrt(2)
    assert ask([(row("/p/snowy_river"), both), (row("/p/river"), axis(0, 0.9))], query())[0] == "snowy_river"


def test_pictures_and_tiles_of_the_index_are_looked_for(tmp_path, model):
    window, other = (0, 0, 8, 8), (6, 0, 8, 8)
    tiles = [(row("/p/a#1.tif", window=w, whole=False), axis(i)) for i, w in enumerate((window, other))]
    index = index_of(tmp_path, *tiles, (row("/p/b"), axis(5)))
    pixels = np.full((4, 4, 3), 5, dtype=np.uint8)
    by_array, by_tile, by_file, both = answer(
        index,
        model,
        [
            Query(pictures=((pixels, 1.0),)),
            Query(pictures=((IndexedTile("/p/a#1.tif#6,0,8,8"), 1.0),)),
            Query(pictures=((IndexedTile("/p/b"), 1.0),)),
            Query(texts=STADIUM, pictures=((pixels, 2.0),)),
        ],
    )
    assert by_array[0].file.path == by_file[0].file.path == "/p/b"
    assert (by_tile[0].file.path, by_tile[0].tile.window, by_tile[0].tile.whole) == ("/p/a#1.tif", other, False)
    assert [hit.score for hit in both[:2]] == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5)], abs=1e-6)
    with pytest.raises(InputError, match=r"'/p/a#1.tif' has 2 tiles in the index; name one"):
        answer(index, model, [Query(pictures=((IndexedTile("/p/a#1.tif"), 1.0),))])
    with pytest.raises(InputError, match=r"has no tile '/p/none' \(1, 2, 3, 4\)"):
        answer(index, model, [Query(pictures=((IndexedTile("/p/none#1,2,3,4"), 1.0),))])


def test_many_queries_are_embedded_at_once_and_answered_in_order(tmp_path, model):
    index = index_of(tmp_path, (row("/p/river"), axis(0)), (row("/p/stadium"), axis(1)), (row("/p/snow"), axis(2)))
    queries = [Query(texts=((word, 1.0),), top=1) for word in ("snow", "river", "stadium", "river")]
    assert [hits[0].file.path for hits in answer(index, model, queries)] == [f"/p/{q.texts[0][0]}" for q in queries]
    assert model.asked == [["snow", "river", "stadium"]]
    assert answer(index, model, []) == []


def test_top_and_min_score_bound_an_answer(ask, tmp_path, model):
    index = index_of(tmp_path, *[(row(f"/p/{i}"), axis(0, i / 10)) for i in range(10)])
    scores = [hit.score for hit in answer(index, model, [query(top=4)])[0]]
    assert scores == pytest.approx([math.cos(i / 10) for i in range(4)], abs=1e-6)
    assert len(answer(index, model, [query(min_score=0.9)])[0]) == 5  # cos 0.4 is 0.92, cos 0.5 is 0.88
    assert len(answer(index, model, [query(min_score=0.9, fold=True)])[0]) == 3  # those 0.1 apart are one


# ---- near-duplicates ----


def test_near_duplicates_are_folded_and_make_room(ask):
    copies = [(row(f"/p/copy{i}"), axis(0, 0.001 * i)) for i in range(30)]
    tiles = [*copies, (row("/p/other"), axis(0, 0.8))]
    assert ask(tiles, query(top=2, fold=True)) == ["copy0", "other"]


def test_near_duplicates_are_all_shown_on_demand(ask):
    assert ask([(row(f"/p/{i}"), axis(0, i / 100)) for i in range(3)], query()) == ["0", "1", "2"]


def test_overlapping_tiles_of_one_raster_are_folded_and_those_apart_are_not(tmp_path, model):
    windows = [(0, 0, 8, 8), (6, 0, 8, 8), (8, 0, 8, 8)]
    tiles = [(row("/p/a", window=w, whole=False), axis(0, 0.5 * i)) for i, w in enumerate(windows)]
    index = index_of(tmp_path, *tiles, (row("/p/b", window=windows[1]), axis(0, 0.25)))
    hits = answer(index, model, [query(fold=True)])[0]
    assert [(hit.file.path, hit.tile.window[0]) for hit in hits] == [("/p/a", 0), ("/p/b", 6), ("/p/a", 8)]


# ---- where ----


def test_a_box_finds_the_tiles_it_touches(ask):
    tiles = placed(inside=square(10, 50), touching=square(11.5, 50.5), beside=square(13, 50), point=((10.5, 50.5),))
    tiles.append((row("/p/nowhere"), axis(0)))
    assert ask(tiles, query(regions=(box(10, 50, 12, 52),))) == ["inside", "touching", "point"]


def test_a_box_over_the_antimeridian_finds_tiles_on_both_sides_and_across(ask):
    across = ((179.5, 0), (-179.5, 0), (-179.5, 1), (179.5, 1))
    tiles = placed(west=square(178, 0), east=square(-179, 0), across=across, far=square(0, 0))
    assert ask(tiles, query(regions=(box(178.5, -1, -178.5, 2),))) == ["west", "east", "across"]


@pytest.mark.parametrize("bounds", [(179.6, 0, 179.9, 1), (-179.9, 0, -179.6, 1)])
def test_a_tile_across_the_antimeridian_is_found_from_either_side_alone(ask, bounds):
    across = ((-179.5, 0), (179.5, 0), (179.5, 1), (-179.5, 1))
    assert ask(placed(across=across, other=square(0, 0)), query(regions=(box(*bounds),))) == ["across"]


def test_a_radius_is_measured_on_the_ellipsoid(ask):
    # A degree of longitude has 111,320 m at the equator and 55,800 m at 60 degrees north.
    tiles = placed(near=((10.9, 60),), far=((11.0, 60),), square=square(8.0, 59.5), beside=square(8.0, 57))
    assert ask(tiles, query(regions=(circle(10, 60, 55_700),))) == ["near"]
    assert circle(10, 60, 55_900).touches(np.array([outline(((11.0, 60),)), outline(((11.1, 60),))])).tolist() == [1, 0]
    assert circle(0, 0, 111_250).touches(np.array([outline(((1.0, 0),))])).tolist() == [False]
    assert circle(0, 0, 111_350).touches(np.array([outline(((1.0, 0),))])).tolist() == [True]


def test_a_radius_reaches_the_nearest_side_of_a_tile_and_its_inside(ask):
    tiles = placed(around=square(9.5, 59.5), side=square(10.5, 59.5), beside=square(12, 59.5))
    assert ask(tiles, query(regions=(circle(10, 60, 30_000),))) == ["around", "side"]


def test_a_radius_over_the_antimeridian_and_at_a_pole(ask):
    tiles = placed(over=((-179.9, 0),), far=((170.0, 0),), pole=((100.0, 89.9),))
    assert ask(tiles, query(regions=(circle(179.9, 0, 30_000),))) == ["over"]


def test_a_radius_around_a_pole_finds_any_longitude(ask):
    tiles = placed(pole=((100.0, 89.9),), far=((100.0, 80),))
    assert ask(tiles, query(regions=(circle(-50, 89.9, 30_000),))) == ["pole"]


TRIANGLE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [0, 10], [0, 0]]]}


@pytest.mark.parametrize("form", ["geometry", "feature", "collection", "text", "wkt", "wkt_file"])
def test_a_polygon_is_exact_beyond_its_bounds_in_any_form(ask, tmp_path, form):
    wkt = "POLYGON ((0 0, 10 0, 0 10, 0 0))"
    feature = {"type": "Feature", "properties": {}, "geometry": TRIANGLE}
    file = tmp_path / "area.geojson"
    collection = {"type": "FeatureCollection", "features": [feature]}
    content = {"feature": feature, "collection": collection}.get(form, TRIANGLE)
    file.write_text(wkt if form == "wkt_file" else json.dumps(content), encoding="utf-8")
    given = {"wkt": wkt, "text": json.dumps(TRIANGLE)}.get(form, file)
    tiles = placed(inside=square(1, 1), corner=square(8.5, 8.5), edge=square(4.5, 4.5))
    assert ask(tiles, query(regions=(polygon(given),))) == ["inside", "edge"]


def test_a_region_that_few_tiles_of_its_bounds_touch_still_fills_the_answer(ask):
    corner = [(row(f"/p/beside{i}", footprint=square(9, 9, 0.5)), axis(0)) for i in range(60)]
    tiles = [*corner, (row("/p/inside", footprint=square(1, 1)), axis(4))]
    assert ask(tiles, query(regions=(polygon(TRIANGLE),), top=2)) == ["inside"]


def test_regions_narrow_each_other(ask):
    tiles = placed(both=square(1, 1), one=square(1, 6))
    assert ask(tiles, query(regions=(polygon(TRIANGLE), box(0, 0, 5, 5)))) == ["both"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("POLYGON ((0 0, 1 1, 0 1, 1 0, 0 0))", "no valid one: Self-intersection"),
        ("POLYGON ((0 0, 500000 0, 0 500000, 0 0))", "no longitudes and latitudes"),
        ("POLYGON ((0 0, 1", "neither GeoJSON nor WKT"),
        ("{", "is no GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "at least one"),
        ('{"type": "FeatureCollection", "features": 3}', "neither GeoJSON nor WKT"),
        ('{"type": "Point", "coordinates": [0, 0]}', "expected polygons alone"),
        ('{"type": "Feature", "geometry": null}', "neither GeoJSON nor WKT|expected polygons alone"),
        ('{"a": ' * 100_000, "is no GeoJSON"),
        ("/nowhere/area.geojson", "cannot read /nowhere/area.geojson"),
    ],
)
def test_a_polygon_that_is_none_is_one_line(given, message):
    with pytest.raises(InputError, match=message):
        polygon(given)


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (box, (0, 10, 5, 5), "its south 10 is north of its north 5"),
        (box, (0, -91, 5, 5), "latitude -91 is not within"),
        (box, (0, 0, 181, 5), "longitude 181 is not within"),
        (box, (math.nan, 0, 1, 5), "longitude nan is not within"),
        (circle, (0, 0, 0), "radius: 0 metres"),
        (circle, (0, 0, math.inf), "radius: inf metres"),
        (circle, (0, 95, 10), "latitude 95"),
    ],
)
def test_a_place_that_is_none_is_one_line(make, given, message):
    with pytest.raises(InputError, match=message):
        make(*given)


def test_an_index_that_knows_no_place_says_so(ask):
    with pytest.raises(InputError, match="knows no picture's place, so none can be looked for by place"):
        ask([(row(), axis(0))], query(regions=(box(0, 0, 1, 1),)))


def test_a_map_of_the_whole_earth_is_everywhere(ask):
    earth = ((-180, 90), (180, 90), (180, -90), (-180, -90))
    assert ask(placed(earth=earth, other=square(0, 0)), query(regions=(box(100, 40, 101, 41),))) == ["earth"]


# ---- when, and in which folder ----


def test_dates_narrow_an_answer(ask, tmp_path, model):
    days = ("2024-04-30", "2024-05-01", "2024-05-02")
    tiles = [(row(f"/p/{day}", taken=day), axis(0, i / 100)) for i, day in enumerate(days)]
    index = index_of(tmp_path, *tiles, (row("/p/unknown", taken=None), axis(0)))

    def found(**said):
        return [hit.file.path.rsplit("/")[-1] for hit in answer(index, model, [query(**said)])[0]]

    assert found(since=moment("2024-05-01")) == list(days[1:])
    assert found(until=moment("2024-05-01", end=True)) == list(days[:2])
    assert found(since=moment("2024-05-01"), until=moment("2024-05-01", end=True)) == [days[1]]
    assert found(since=moment("2024-05-01T01:00+02:00"), until=moment("2024-05-01T12:00")) == [days[1]]


def test_a_date_that_is_none_is_one_line():
    for text in ("yesterday", "2024-13-01", "9999-12-31"):
        with pytest.raises(InputError, match=r"is no date; write 2026-05-31"):
            moment(text, end=True)


def test_a_folder_or_archive_narrows_an_answer(ask):
    paths = ("/p/it's 100%/a", "/p/it's 100%/b/c", "/p/it's 100%_other/a", "/p/it's 1000/a")
    tiles = [(row(path), axis(0, i / 10)) for i, path in enumerate(paths)]
    assert ask(tiles, query(folder="/p/it's 100%/")) == ["a", "c"]


def test_filters_that_nothing_fulfils_give_no_hit_and_a_warning(ask, capsys):
    assert ask([(row(), axis(0))], query(folder="/q")) == []
    assert "query 'river': no tile of the index is where, when and in the folder it asks for" in capsys.readouterr().err


# ---- what cannot be asked ----


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"texts": ()}, "needs a text or a picture"),
        ({"texts": (), "minus": SNOW}, "needs a text or a picture"),
        ({"top": 0}, "top 0: give 1 to"),
        ({"texts": (("river", 0.0),)}, "weight 0.0: give a number more than 0"),
        ({"minus": (("river", math.nan),)}, "weight nan"),
        ({"min_score": 2.0}, "min_score 2.0: give -1 to 1"),
        ({"since": moment("2024-05-02"), "until": moment("2024-05-02")}, "nothing is since 2024-05-02 and before"),
    ],
)
def test_a_query_that_cannot_be_asked_is_one_line(said, message):
    with pytest.raises(InputError, match=message):
        query(**said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a query's text is empty"),
        (" \n ", "a query's text is empty"),
        ("?!", "no word left"),
        ("\U0001f3df", "the model knows no word of the text '\U0001f3df'"),
        ("体育场", "the model knows no word of the text '体育场'"),
        ("стадион река", "the model knows no word of the text"),
    ],
)
def test_a_text_without_a_word_that_the_model_knows_is_one_line(ask, text, message):
    with pytest.raises(InputError, match=message):
        ask([(row(), axis(0))], query(texts=((text, 1.0),)))


def test_words_that_the_model_does_not_know_are_named(ask, capsys):
    assert ask([(row(), axis(0))], query(texts=(("river \U0001f3df beside 河", 1.0),)))
    said = "the model does not know some words, and takes all of them for one: 2 unknown words: '\U0001f3df'; '河'"
    assert said in capsys.readouterr().err


def test_a_text_of_10000_words_is_cut_and_says_so(ask, capsys):
    assert ask([(row(), axis(0))], query(texts=(("river beside " * 5000, 1.0),)))
    assert "has 10000 words, the model reads the first 10 alone" in capsys.readouterr().err


def test_a_known_text_warns_of_nothing(ask, capsys):
    assert ask([(row(), axis(0))], query())
    assert capsys.readouterr().err == ""


def test_parts_that_cancel_out_are_one_line(ask):
    with pytest.raises(InputError, match="query 'river - river': its parts cancel out"):
        ask([(row(), axis(0))], query(minus=RIVER))


def test_a_model_of_another_dimension_is_one_line(ask, model, monkeypatch):
    monkeypatch.setattr(model, "embed_texts", lambda texts: np.ones((len(texts), 4)))
    with pytest.raises(InputError, match=r"the model gives 4 numbers a picture, the index .* has 8"):
        ask([(row(), axis(0))], query())
