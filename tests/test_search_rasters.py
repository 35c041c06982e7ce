"""Pictures and rasters, cut into tiles with their place on the Earth and read tile by tile."""

import io
import math
import multiprocessing
import os
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from affine import Affine
from PIL import ExifTags, Image
from shapely.geometry import Point, Polygon

from dataset.pictures import USUAL, PictureRule, load_picture
from search import cutting, opening, rasters
from search.files import find_files
from search.items import Tiling
from search.opening import open_picture
from utils.errors import InputError

import rasterio  # isort: skip: after search.rasters, which says what drivers there are
from rasterio.control import GroundControlPoint  # isort: skip
from rasterio.enums import ColorInterp  # isort: skip
from rasterio.transform import from_origin  # isort: skip
from rasterio.warp import transform  # isort: skip

UTM, WEST, NORTH = "EPSG:32633", 400_000, 5_500_000
RED = (250, 10, 20)
UTM_PLACE = {"crs": UTM, "transform": from_origin(WEST, NORTH, 2, 2)}
SMALL = Tiling(pixels=64, whole_up_to=64)


def land(height, width, bands=3, kind="uint8"):
    """Values from 60 to 120, without edges."""
    rows, columns = np.mgrid[:height, :width]
    waves = 90 + 30 * np.sin(rows / 23) * np.cos(columns / 31)
    return np.stack([waves + band for band in range(bands)]).astype(kind)


def written(path, values, driver="GTiff", **more):
    colours = more.pop("colours", None)
    sizes = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with rasterio.open(path, "w", driver=driver, **sizes, **more) as opened:
        if colours:
            opened.colorinterp = colours
        opened.write(values)
    return path


def planted(values, column, row, side=24):
    values[:3, row : row + side, column : column + side] = np.reshape(RED, (3, 1, 1))
    return values


def read_all(path, tiling=SMALL, rule=USUAL):
    """(tile, pixels) of each tile, and the opened picture's remarks."""
    with open_picture(find_files([path]).files[0], tiling, rule) as opened:
        return [(tile, opened.read(tile)) for tile in opened.tiles], opened.remarks


def reddest(read):
    return max(read, key=lambda item: -1 if item[1] is None else (item[1][:, :, 1] < 30).sum())[0]


# ---- how a picture is cut ----


def test_tiles_cover_a_picture_stay_inside_and_overlap():
    cut = cutting.windows((1000, 700), (256, 256), 0.25, "a.tif")
    covered = np.zeros((700, 1000), int)
    for column, row, width, height in cut:
        assert (width, height) == (256, 256) and 0 <= column <= 744 and 0 <= row <= 444
        covered[row : row + height, column : column + width] += 1
    assert covered.min() == 1 and len(cut) == len(set(cut)) == 5 * 4
    assert cut[:2] == [(0, 0, 256, 256), (192, 0, 256, 256)]


def test_a_picture_narrower_than_a_tile_gives_narrower_tiles():
    assert cutting.windows((100, 600), (256, 256), 0, "a.tif") == [
        *((0, row, 100, 256) for row in (0, 256, 344)),
    ]
    assert cutting.windows((256, 256), (256, 256), 0.9, "a.tif") == [(0, 0, 256, 256)]


def test_a_picture_that_would_give_a_million_tiles_is_refused():
    with pytest.raises(InputError, match=r"a\.tif would be cut into 16,000,000 tiles: choose larger ones"):
        cutting.windows((4000, 4000), (1, 1), 0, "a.tif")


# ---- ordinary pictures ----


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp", "a.jp2", "a.gif"])
def test_an_ordinary_picture_is_one_tile_of_the_usual_pixels(tmp_path, name):
    Image.fromarray(land(90, 120).transpose(1, 2, 0)).save(tmp_path / name)
    ((tile, pixels),), remarks = read_all(tmp_path / name, Tiling())
    assert (tile.window, tile.whole, tile.footprint, remarks) == ((0, 0, 120, 90), True, None, [])
    np.testing.assert_array_equal(pixels, load_picture(tmp_path / name))


@pytest.mark.parametrize("mode", ["CMYK", "LA", "L", "1", "RGBA"])
def test_colours_of_every_kind_are_as_everywhere(tmp_path, mode):
    Image.fromarray(land(90, 120).transpose(1, 2, 0)).convert(mode).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif", Tiling())[0][0][1], load_picture(tmp_path / "a.tif"))


def test_a_larger_picture_is_cut_upright(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(land(150, 100).transpose(1, 2, 0)).save(tmp_path / "a.png", exif=exif)
    upright = load_picture(tmp_path / "a.png")
    assert upright.shape == (100, 150, 3)
    read, remarks = read_all(tmp_path / "a.png", Tiling(pixels=64, whole_up_to=100))
    assert len(read) == 6 and remarks == []
    for tile, pixels in read:
        column, row, width, height = tile.window
        assert not tile.whole
        np.testing.assert_array_equal(pixels, upright[row : row + height, column : column + width])


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_too_large_to_decode_at_once_is_read_by_windows_and_turned(tmp_path, monkeypatch, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(land(150, 100).transpose(1, 2, 0)).save(tmp_path / name, exif=exif, quality=95)
    whole = load_picture(tmp_path / name)
    monkeypatch.setattr(opening, "DECODED_PIXELS", 10_000)
    read, _ = read_all(tmp_path / name, Tiling(pixels=64, whole_up_to=64))
    assert read[0][0].window == (0, 0, 64, 64) and read[-1][0].window == (36, 86, 64, 64)  # in the file as stored
    difference = read[0][1].astype(int) - whole[:64, -64:]
    assert abs(difference).max() <= 3


def test_metres_without_a_georeference_are_pixels_and_said_so(tmp_path):
    Image.fromarray(land(200, 200).transpose(1, 2, 0)).save(tmp_path / "a.png")
    written(tmp_path / "b.tif", land(200, 200, 4))
    for name in ("a.png", "b.tif"):
        read, (remark,) = read_all(tmp_path / name, Tiling(pixels=64, whole_up_to=64, metres=1000))
        assert read[0][0].window == (0, 0, 64, 64)
        assert "is cut into tiles of 64 pixels, not by metres: it has no georeference" in remark
        assert read_all(tmp_path / name, Tiling(metres=1000))[1] == []  # one tile either way


# ---- where a tile lies ----


@pytest.mark.parametrize("driver", ["GTiff", "COG", "JP2OpenJPEG"])
def test_a_planted_square_is_found_in_the_tile_where_it_lies(tmp_path, driver):
    values = planted(land(300, 400), 250, 130)
    more = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    path = written(tmp_path / ("a.jp2" if "JP2" in driver else "a.tif"), values, driver, **UTM_PLACE, **more)
    read, remarks = read_all(path)
    tile = reddest(read)
    (longitude,), (latitude,) = transform(UTM, "EPSG:4326", [WEST + 2 * 262], [NORTH - 2 * 142])
    assert Polygon(tile.footprint).contains(Point(longitude, latitude)) and remarks == []
    around = [t for t, _ in read if Polygon(t.footprint).contains(Point(longitude, latitude))]
    assert 1 <= len(around) <= 4 < len(read)
    column, row, width, height = tile.window
    np.testing.assert_array_equal(
        dict(read)[tile], values[:, row : row + height, column : column + width].transpose(1, 2, 0)
    )


def test_footprints_go_around_the_window_in_longitude_and_latitude(tmp_path):
    path = written(tmp_path / "a.tif", land(100, 200), crs="EPSG:4326", transform=from_origin(10, 50, 0.01, 0.01))
    ((tile, _),), _ = read_all(path, Tiling())
    assert tile.whole
    np.testing.assert_allclose(tile.footprint, [(10, 50), (12, 50), (12, 49), (10, 49)], atol=1e-9)


def test_a_turned_raster_has_a_turned_footprint(tmp_path):
    turn = Affine.translation(WEST, NORTH) * Affine.rotation(30) * Affine.scale(2, -2)
    path = written(tmp_path / "a.tif", planted(land(300, 300), 200, 40), crs=UTM, transform=turn)
    read, _ = read_all(path)
    x, y = turn * (212, 52)
    (longitude,), (latitude,) = transform(UTM, "EPSG:4326", [x], [y])
    assert Polygon(reddest(read).footprint).contains(Point(longitude, latitude))
    first = np.array(read[0][0].footprint)
    assert abs(first[0, 1] - first[1, 1]) > 1e-4  # the upper side does not run from west to east


def test_ground_control_points_place_a_raster(tmp_path):
    corners = [(0, 0, 10, 50), (0, 300, 11, 50), (300, 0, 10, 49), (300, 300, 11, 49)]
    points = [GroundControlPoint(row, column, x, y) for row, column, x, y in corners]
    path = written(tmp_path / "a.tif", land(300, 300), gcps=points, crs="EPSG:4326")
    ((tile, _),), _ = read_all(path, Tiling())
    np.testing.assert_allclose(tile.footprint, [(10, 50), (11, 50), (11, 49), (10, 49)], atol=1e-6)


@pytest.mark.parametrize("world", ["a.jgw", "a.JGW", "a.wld"])
def test_world_files_and_aux_xml_beside_a_jpeg_are_read(tmp_path, world):
    Image.fromarray(land(100, 100).transpose(1, 2, 0)).save(tmp_path / "a.jpg")
    (tmp_path / world).write_text(f"2\n0\n0\n-2\n{WEST + 1}\n{NORTH - 1}\n")
    (tile, _), *_ = read_all(tmp_path / "a.jpg", Tiling())[0]
    assert tile.footprint is None  # where, but in no known system
    (tmp_path / "a.jpg.aux.xml").write_text(f"<PAMDataset><SRS>{UTM}</SRS></PAMDataset>")
    (tile, pixels), *_ = read_all(tmp_path / "a.jpg", Tiling())[0]
    (longitude,), (latitude,) = transform(UTM, "EPSG:4326", [WEST], [NORTH])
    np.testing.assert_allclose(tile.footprint[0], (longitude, latitude), atol=1e-9)
    assert pixels.shape == (100, 100, 3)


@pytest.mark.parametrize(
    "crs",
    [
        'LOCAL_CS["site grid",UNIT["metre",1]]',
        'ENGCRS["x",EDATUM["y"],CS[Cartesian,2],AXIS["e",east],AXIS["n",north],LENGTHUNIT["metre",1]]',
        'GEOGCS["Moon",DATUM["D_Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Greenwich",0],UNIT["Degree",0.0174532925]]',
    ],
)
def test_a_strange_coordinate_system_gives_tiles_without_a_place_and_a_remark(tmp_path, crs):
    path = written(tmp_path / "a.tif", land(200, 200), crs=crs, transform=from_origin(5, 6, 1, 1))
    read, (remark,) = read_all(path)
    assert {tile.footprint for tile, _ in read} == {None} and all(pixels is not None for _, pixels in read)
    assert remark == f"{path} has no footprint: its coordinate system gives no longitude and latitude"
    read, remarks = read_all(path, Tiling(64, metres=10, whole_up_to=64))
    assert read[0][0].window == (0, 0, 64, 64) and "not by metres" in remarks[-1]


@pytest.mark.parametrize(
    ("crs", "corner", "pixel"),
    [("EPSG:4326", (10, 95), 0.1), (UTM, (1e30, 1e30), 1), (UTM, (0, 0), 0), ("EPSG:4326", (float("nan"), 0), 1)],
)
def test_coordinates_that_are_nowhere_give_no_footprint(tmp_path, crs, corner, pixel):
    path = written(
        tmp_path / "a.tif", land(100, 100), crs=crs, transform=Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    )
    ((tile, pixels),), _ = read_all(path, Tiling())
    assert tile.footprint is None and pixels is not None


def test_only_the_tiles_outside_of_the_projection_lack_a_footprint(tmp_path):
    globe = "+proj=ortho +lat_0=0 +lon_0=0 +datum=WGS84"  # a disc with corners that show no ground
    path = written(tmp_path / "a.tif", land(320, 320), crs=globe, transform=from_origin(-7e6, 7e6, 43750, 43750))
    read, remarks = read_all(path, Tiling(64, overlap=0, whole_up_to=64))
    known = [tile for tile, _ in read if tile.footprint]
    assert len(read) == 25 and 9 <= len(known) < 25 and remarks == []


def test_a_tile_across_the_180th_meridian_is_not_drawn_around_the_world(tmp_path):
    x = transform("EPSG:4326", "EPSG:3832", [179.5], [0])[0][0]  # a Mercator of the Pacific
    path = written(tmp_path / "a.tif", land(100, 100), crs="EPSG:3832", transform=from_origin(x, 50_000, 1000, 1000))
    ((tile, _),), _ = read_all(path, Tiling())
    longitudes = [longitude for longitude, _ in tile.footprint]
    assert max(longitudes) - min(longitudes) < 1 and abs(np.mean(longitudes)) > 179
    path = written(tmp_path / "b.tif", land(100, 100), crs="EPSG:4326", transform=from_origin(200, 10, 0.1, 0.1))
    ((tile, _),), _ = read_all(path, Tiling())
    np.testing.assert_allclose(tile.footprint[0], (-160, 10))
    path = written(tmp_path / "c.tif", land(90, 180), crs="EPSG:4326", transform=from_origin(-180, 90, 2, 2))
    ((tile, _),), _ = read_all(path, Tiling())
    np.testing.assert_allclose(tile.footprint, [(-180, 90), (180, 90), (180, -90), (-180, -90)])


# ---- tiles by metres ----


def ground(footprint):
    """Width and height in metres of a small footprint, on a sphere."""
    (west, north), (east, _), (_, south), _ = footprint
    degree = math.pi / 180 * 6371e3
    return (east - west) * degree * math.cos(math.radians(north)), (north - south) * degree


@pytest.mark.parametrize("system", ["UTM", "degrees", "Mercator"])
def test_metres_are_metres_on_the_ground_at_any_latitude(tmp_path, system):
    place = {
        "UTM": {"crs": "EPSG:32633", "transform": from_origin(500_000, 6_700_000, 2, 2)},
        "degrees": {"crs": "EPSG:4326", "transform": from_origin(15, 60, 2e-5, 2e-5)},
        "Mercator": {"crs": "EPSG:3857", "transform": from_origin(1.67e6, 8.4e6, 4, 4)},
    }[system]
    path = written(tmp_path / "a.tif", land(400, 500), **place)
    read, remarks = read_all(path, Tiling(pixels=50, metres=200, overlap=0))
    assert remarks == [] and len(read) > 4
    for tile, pixels in read:
        assert ground(tile.footprint) == pytest.approx((200, 200), rel=0.02)
        assert pixels.shape == (50, 50, 3)  # not more than was asked for


def test_small_tiles_by_metres_are_not_blown_up(tmp_path):
    path = written(tmp_path / "a.tif", land(200, 200), **UTM_PLACE)
    read, _ = read_all(path, Tiling(pixels=512, metres=100))
    assert {pixels.shape for _, pixels in read} == {(50, 50, 3)}


# ---- pixels ----


def test_16_bits_are_stretched_once_for_the_whole_raster(tmp_path):
    values = land(300, 300, 4, "uint16") * 40
    values[:, :, 150:] *= 2  # stretched by itself, each half would look the same
    path = written(tmp_path / "a.tif", values, **UTM_PLACE)
    low, high = np.percentile(values[0], [2, 98])
    for tile, pixels in read_all(path)[0]:
        column, row, width, height = tile.window
        expected = (values[0, row : row + height, column : column + width] - low) * 255 / (high - low)
        np.testing.assert_allclose(pixels[:, :, 0], expected.clip(0, 255), atol=1)


def test_rules_and_bands_are_the_callers(tmp_path):
    values = land(100, 100, 4, "uint16") * 40
    path = written(tmp_path / "a.tif", values, **UTM_PLACE)
    pixels = read_all(path, Tiling(), PictureRule("divide 40", (4, 3, 2)))[0][0][1]
    np.testing.assert_array_equal(pixels, (values[[3, 2, 1]] // 40).transpose(1, 2, 0))
    pixels = read_all(path, Tiling(), PictureRule("minmax"))[0][0][1]
    assert (pixels.min(), pixels.max()) == (0, 255)
    with pytest.raises(InputError, match=r"a\.tif has 4 bands, 'bands' names 5"):
        read_all(path, Tiling(), PictureRule("minmax", (5, 1, 1)))


def test_a_large_rasters_stretch_is_sampled_from_all_over_it(tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "_WHOLE_SAMPLE", 0)
    values = np.tile(np.arange(3000, dtype=np.uint16), (200, 1))[None]
    path = written(tmp_path / "a.tif", values, **UTM_PLACE)
    read, _ = read_all(path, Tiling(200, overlap=0, whole_up_to=100))
    assert read[7][1].mean() == pytest.approx(255 / 2, abs=6)
    np.testing.assert_array_equal(read[3][1][0, 100], read[3][1][199, 100])


def test_colours_stand_where_the_file_says(tmp_path):
    values = land(100, 100, 4)
    values += np.arange(4, dtype=np.uint8)[:, None, None] * 10
    meaning = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    path = written(tmp_path / "a.tif", values, **UTM_PLACE, colours=meaning, PHOTOMETRIC="MINISBLACK")
    np.testing.assert_array_equal(read_all(path, Tiling())[0][0][1], values[[3, 2, 1]].transpose(1, 2, 0))


def test_one_band_and_two_are_grey(tmp_path):
    for bands in (1, 2):
        values = land(100, 100, bands)
        pixels = read_all(written(tmp_path / "a.tif", values, **UTM_PLACE), Tiling())[0][0][1]
        np.testing.assert_array_equal(pixels, np.repeat(values[0][:, :, None], 3, axis=2))


def test_a_palette_gives_its_colours(tmp_path):
    values = np.zeros((1, 100, 100), np.uint8)
    values[0, 20:40] = 7
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, width=100, height=100, dtype="uint8", **UTM_PLACE
    ) as opened:
        opened.write_colormap(1, {0: (10, 20, 30, 255), 7: (*RED, 255)})
        opened.write(values)
    pixels = read_all(tmp_path / "a.tif", Tiling())[0][0][1]
    assert pixels[0, 0].tolist() == [10, 20, 30] and pixels[30, 50].tolist() == list(RED)
    Image.fromarray(pixels).quantize(4).save(tmp_path / "p.png")
    assert read_all(tmp_path / "p.png", Tiling())[0][0][1][30, 50].tolist() == list(RED)


@pytest.mark.parametrize("kind", ["nodata", "alpha", "NaN", "mask", "black"])
def test_tiles_without_data_are_none(tmp_path, kind):
    valid = np.zeros((200, 200), bool)
    valid[:100, :100] = valid[:60, 130:] = True
    values, more = land(200, 200, 4 if kind == "alpha" else 3, "float32" if kind == "NaN" else "uint8"), {}
    values[:3, ~valid] = {"nodata": 250, "NaN": np.nan, "black": 0}.get(kind, 90)
    if kind == "alpha":
        values[3], more = 255 * valid, {"PHOTOMETRIC": "RGB", "ALPHA": "YES"}
    if kind == "nodata":
        more = {"nodata": 250}
    path = written(tmp_path / "a.tif", values, **UTM_PLACE, **more)
    if kind == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as opened:
            opened.write_mask(valid)
    for tile, pixels in read_all(path, Tiling(50, overlap=0, whole_up_to=50))[0]:
        column, row, width, height = tile.window
        inside = valid[row : row + height, column : column + width]
        assert (pixels is None) == (inside.mean() < 0.05)
        if pixels is not None:
            assert not pixels[~inside].any()


def test_a_cog_is_read_decimated_from_its_overviews_with_its_nodata(tmp_path):
    values = planted(land(2048, 2048), 1200, 600, 400)
    values[:, :, :512] = 0
    path = written(tmp_path / "cog.tif", values, "COG", nodata=0, **UTM_PLACE)
    read, _ = read_all(path, Tiling(pixels=64, metres=512, overlap=0))
    assert len(read) == 64 and sum(pixels is None for _, pixels in read) == 16
    (longitude,), (latitude,) = transform(UTM, "EPSG:4326", [WEST + 2 * 1400], [NORTH - 2 * 800])
    assert Polygon(reddest(read).footprint).distance(Point(longitude, latitude)) < 1e-3
    assert all(pixels is None or pixels.shape == (64, 64, 3) for _, pixels in read)


@pytest.mark.parametrize("bits", [1, 4, 12])
def test_odd_numbers_of_bits_span_all_of_black_to_white(tmp_path, bits):
    ramp = (np.mgrid[:64, :64][1] * (2**bits - 1) // 63)[None].astype(np.uint16 if bits > 8 else np.uint8)
    path = written(tmp_path / "a.tif", ramp, **UTM_PLACE, NBITS=bits)
    pixels = read_all(path)[0][0][1]
    assert (pixels[0, 0].tolist(), pixels[0, -1].tolist()) == ([0, 0, 0], [255, 255, 255])


def test_numbers_of_any_kind_become_pictures_and_complex_ones_a_line(tmp_path):
    for kind in ("int16", "int32", "float64"):
        values = land(100, 100, 3, kind) - 100
        pixels = read_all(written(tmp_path / "a.tif", values, **UTM_PLACE), Tiling())[0][0][1]
        assert (pixels.dtype, pixels.min(), pixels.max()) == (np.uint8, 0, 255)
    path = written(tmp_path / "a.tif", land(100, 100, 1, "complex64"), **UTM_PLACE)
    with pytest.raises(InputError, match=r"a\.tif has complex numbers"):
        read_all(path, Tiling())


# ---- when and where a picture was taken ----


def photograph(path, **more):
    exif = Image.Exif()
    details = {ExifTags.Base.DateTimeOriginal: "2024:07:31 12:30:00"}
    if "offset" in more:
        details[ExifTags.Base.OffsetTimeOriginal] = more["offset"]
    gps = {1: "S", 2: (33.0, 30.0, 36.0), 3: "W", 4: (70.0, 36.0, 0.0)} | more.get("gps", {})
    for part, values in ((ExifTags.IFD.Exif, details), (ExifTags.IFD.GPSInfo, gps)):
        exif.get_ifd(part).update(values)  # for which Pillow writes no more than this to a JPEG
        exif[part] = values  # and no less to a TIFF
    Image.fromarray(land(100, 150).transpose(1, 2, 0)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png", "a.webp"])
def test_the_camera_says_where_and_when(tmp_path, name):
    with open_picture(find_files([photograph(tmp_path / name, offset="+02:00")]).files[0], SMALL) as opened:
        assert opened.taken == datetime(2024, 7, 31, 12, 30, tzinfo=timezone(timedelta(hours=2)))
        assert len(opened.tiles) == 6
        for tile in opened.tiles:
            np.testing.assert_allclose(tile.footprint, [(-70.6, -33.51)])


def test_a_time_without_a_zone_is_utc_and_nonsense_is_none(tmp_path):
    odd = {2: (91.0, 0.0, 0.0)}
    with open_picture(find_files([photograph(tmp_path / "a.jpg", gps=odd)]).files[0], Tiling()) as opened:
        assert opened.taken == datetime(2024, 7, 31, 12, 30, tzinfo=UTC)
        assert opened.tiles[0].footprint is None
    path = written(tmp_path / "a.tif", land(100, 100), **UTM_PLACE)
    with rasterio.open(path, "r+") as opened:
        opened.update_tags(TIFFTAG_DATETIME="2023:01:02 03:04:05")
    with open_picture(find_files([path]).files[0], Tiling()) as opened:
        assert opened.taken == datetime(2023, 1, 2, 3, 4, 5, tzinfo=UTC)
    with rasterio.open(path, "r+") as opened:
        opened.update_tags(TIFFTAG_DATETIME="yesterday")
    with open_picture(find_files([path]).files[0], Tiling()) as opened:
        assert opened.taken is None


# ---- archives, strange names, bad files ----


def test_rasters_in_archives_are_read_like_files(tmp_path):
    path = written(tmp_path / "a.tif", planted(land(300, 300), 200, 100), **UTM_PLACE)
    expected, _ = read_all(path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.write(path, "in/a.tif")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as opened:
        opened.add(path, "in/a.tif")
    for archive in ("a.zip", "a.tar.gz"):
        read, _ = read_all(tmp_path / archive)
        for (tile, pixels), (tile_expected, pixels_expected) in zip(read, expected, strict=True):
            assert tile == tile_expected
            np.testing.assert_array_equal(pixels, pixels_expected)


def checksums(path):
    return [int(pixels.astype(int).sum()) for _, pixels in read_all(path)[0]]


@pytest.mark.parametrize("way", ["threads", "fork", "spawn"])
def test_threads_and_processes_each_open_their_own(tmp_path, way):
    path = written(tmp_path / "a.tif", land(300, 300, 4, "uint16"), **UTM_PLACE)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as opened:
        opened.add(path, "b.tif")
    archive = tmp_path / "b.tar.gz"
    expected = [checksums(path), checksums(archive)] * 4  # read here too, so that a fork inherits what is open
    if way == "threads":
        pool = ThreadPoolExecutor(4)
    else:
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(way))
    with pool:
        assert list(pool.map(checksums, [path, archive] * 4)) == expected


@pytest.mark.parametrize("name", ["a\nb.tif", "a#b?c=1.tif", "zip+http:x!y.tif", "%20 é.tif", "x.vrt.tif"])
def test_names_are_taken_as_they_are(tmp_path, name):
    path = written(tmp_path / "a.tif", land(100, 100), **UTM_PLACE)
    os.rename(path, tmp_path / name)
    assert read_all(tmp_path / name, Tiling())[0][0][1].shape == (100, 100, 3)


@pytest.mark.parametrize("name", ["a.tif", "a.jp2", "a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("damage", ["empty", "text", "header", "cut"])
def test_broken_files_are_one_line_and_nothing_else(tmp_path, capfd, name, damage):
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    kind = {"tif": "TIFF", "jp2": "JPEG2000", "jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name[2:]]
    Image.fromarray(noise).save(data, kind)
    whole = data.getvalue()
    (tmp_path / name).write_bytes(
        {"empty": b"", "text": b"no picture", "header": whole[:20], "cut": whole[:-40_000]}[damage]
    )
    with pytest.raises(InputError, match=rf"cannot read the (picture|raster) .*{name}") as caught:
        read_all(tmp_path / name)
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


def test_a_raster_damaged_in_its_middle_names_the_window(tmp_path, capfd):
    path = written(
        tmp_path / "a.tif", land(256, 256), **UTM_PLACE, tiled=True, blockxsize=64, blockysize=64, compress="LZW"
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = os.urandom(len(data) - len(data) // 2)
    path.write_bytes(data)
    with open_picture(find_files([path]).files[0], Tiling(64, overlap=0, whole_up_to=64)) as opened:
        assert opened.read(opened.tiles[0]).shape == (64, 64, 3)
        with pytest.raises(InputError, match=r"a\.tif at column 192, row 192, 64 x 64 pixels: .*a\.tif") as caught:
            opened.read(opened.tiles[-1])
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


def test_blocks_too_large_for_the_memory_are_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "a.tif", land(256, 256), **UTM_PLACE, compress="LZW", blockysize=256)
    monkeypatch.setattr(rasters, "_BLOCK_BYTES", 100_000)
    with pytest.raises(InputError, match=r"a\.tif is stored in blocks of 256 x 256 pixels, too large: write it tiled"):
        read_all(path)


def test_a_raster_cannot_lead_to_other_files(tmp_path):
    """Neither as a VRT by any name, nor through one that stands for its overviews or mask, or that it names as such."""
    other = written(tmp_path / "secret.tif", np.full((3, 128, 128), 255, np.uint8), **UTM_PLACE)
    vrt = (
        '<VRTDataset rasterXSize="128" rasterYSize="128"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{other}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "elsewhere.tif").write_text(vrt)
    with pytest.raises(InputError, match="cannot read the picture"):
        read_all(tmp_path / "elsewhere.tif")
    path = written(tmp_path / "a.tif", land(256, 256), **UTM_PLACE)
    expected = [pixels for _, pixels in read_all(path, Tiling(64, metres=256))[0]]
    (tmp_path / "a.tif.ovr").write_text(vrt)
    (tmp_path / "a.tif.msk").write_text(vrt)
    (tmp_path / "elsewhere.vrt").write_text(vrt)
    named = f'<MDI key="OVERVIEW_FILE">{tmp_path}/elsewhere.vrt</MDI>'
    (tmp_path / "a.tif.aux.xml").write_text(f'<PAMDataset><Metadata domain="OVERVIEWS">{named}</Metadata></PAMDataset>')
    for (_, pixels), before in zip(read_all(path, Tiling(64, metres=256))[0], expected, strict=True):
        np.testing.assert_array_equal(pixels, before)
    with rasterio.open(path) as opened:
        assert opened.overviews(1) == []
