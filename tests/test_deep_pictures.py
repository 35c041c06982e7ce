"""Pictures of 16 bits and of many bands, made 8 bits by the rule of a config, alike in every reader."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset.cache import PictureCache
from dataset.deep_pictures import scaled
from dataset.pictures import PictureRule, load_picture
from dataset.start_checks import check_headers
from models.embedder import pixels_of
from utils.errors import InputError


def cached(file, rule):
    cache = PictureCache(Path(file).parent / f"cache {rule.deep}", Path(file).parent, rule)
    cache.open([str(file)])
    return cache.load(str(file))


READERS = {"training": load_picture, "cache": cached, "embedding": pixels_of}
EVERY_READER = pytest.mark.parametrize("read", READERS.values(), ids=READERS)
VALUES = np.random.default_rng(0).integers(0, 250, (20, 30, 12)).astype(np.uint16) * 40


@EVERY_READER
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jp2"])
def test_16_bit_colours_are_divided_in_the_order_red_green_blue(tmp_path, read, name):
    values = np.tile(VALUES[:, :, :3], (6, 6, 1))  # JPEG 2000 needs some size
    exact = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if name.endswith("jp2") else []
    assert cv2.imwrite(str(tmp_path / name), values[:, :, ::-1], exact)
    np.testing.assert_array_equal(read(tmp_path / name, PictureRule("divide 40")), values // 40)
    with pytest.raises(InputError, match="more than 8 bits a channel"):
        load_picture(tmp_path / name)
    with pytest.raises(InputError, match="more than 8 bits a channel"):
        check_headers([str(tmp_path / name)])


@EVERY_READER
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_bands_are_chosen_from_1_on(tmp_path, read, compression, planar):
    file, values = tmp_path / "s2.tif", VALUES if planar == "contig" else VALUES.transpose(2, 0, 1)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig=planar, compression=compression)
    wanted = VALUES[:, :, [3, 2, 1]] // 40
    np.testing.assert_array_equal(read(file, PictureRule("divide 40", (4, 3, 2))), wanted)
    check_headers([str(file)], PictureRule("divide 40", (4, 3, 2)))


def test_8_bit_pictures_are_what_they_were_whatever_is_done_to_deep_ones(tmp_path):
    Image.fromarray((VALUES[:, :, :3] // 40).astype(np.uint8)).save(tmp_path / "a.png")
    for rule in ("minmax", "percentile 2-98", "divide 40"):
        np.testing.assert_array_equal(load_picture(tmp_path / "a.png", PictureRule(rule)), VALUES[:, :, :3] // 40)
    swapped = load_picture(tmp_path / "a.png", PictureRule("refuse", (3, 2, 1)))
    np.testing.assert_array_equal(swapped, VALUES[:, :, 2::-1] // 40)


def test_rules_stretch_each_band_by_itself():
    ramp = np.stack([np.linspace(0, 1000, 101), np.linspace(500, 600, 101), np.full(101, 7)], 1)[None]
    low, middle, high = scaled(ramp, "minmax")[0, [0, 20, 100]].tolist()
    assert (low, middle, high) == ([0, 0, 0], [51, 51, 0], [255, 255, 0])
    stretched = scaled(ramp, "percentile 10-90")[0, :, 0]
    assert stretched[:11].max() == 0 and stretched[90:].min() == 255 and stretched[50] in (127, 128)
    assert scaled(np.array([[[np.nan, np.inf, 80]]]), "divide 40").tolist() == [[[0, 0, 2]]]


def test_a_deep_picture_is_turned_as_its_file_says(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(VALUES[:, :, 0] // 40).save(tmp_path / "deep.tif")
        tifffile.imwrite(tmp_path / "deep.tif", VALUES[:, :, 0], extratags=[(274, "H", 1, orientation, True)])
        Image.fromarray((VALUES[:, :, 0] // 40).astype(np.uint8)).save(tmp_path / "usual.png", exif=exif)
        turned = load_picture(tmp_path / "deep.tif", PictureRule("divide 40"))
        np.testing.assert_array_equal(turned, load_picture(tmp_path / "usual.png"))


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_deep_picture_that_is_cut_short_is_refused(tmp_path, name):
    noise = np.random.default_rng(1).integers(0, 2**16, (200, 200, 3)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / name), noise)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60_000])
    with pytest.raises(InputError, match=f"cannot read the picture .*{name}") as told:
        load_picture(tmp_path / name, PictureRule("minmax"))
    assert "0x" not in str(told.value)


def test_a_band_that_is_not_there_is_named(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png has 3 bands, 'bands' names 4"):
        load_picture(tmp_path / "a.png", PictureRule("minmax", (4, 3, 2)))


def test_a_cache_belongs_to_its_rule(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.tif"), VALUES[:, :, :3])
    made = PictureCache(tmp_path / "cache", tmp_path, PictureRule("minmax"))
    made.open([str(tmp_path / "a.tif")])
    for rule in (PictureRule("divide 40"), PictureRule("minmax", (3, 2, 1)), PictureRule()):
        with pytest.raises(InputError, match="made with other deep_pictures or bands"):
            PictureCache(tmp_path / "cache", tmp_path, rule).open([str(tmp_path / "a.tif")])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"deep_pictures": "gamma"}, "expected refuse, minmax"),
        ({"deep_pictures": "percentile 98-2"}, "percentiles rise"),
        ({"deep_pictures": "percentile 2-101"}, "end at 100"),
        ({"deep_pictures": "divide 0"}, "divided by 0"),
        ({"bands": [1, 2]}, "names 2 bands: give three"),
        ({"bands": [0, 1, 2]}, "must be at least 1"),
    ],
)
def test_a_rule_that_is_none_is_an_error_of_the_config(tiny_config, changes, problem):
    with pytest.raises(InputError, match=problem):
        tiny_config(**changes)


def test_an_error_has_no_memory_address(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError) as told:
        load_picture(tmp_path / "a.jpg")
    assert "0x" not in str(told.value) and "BytesIO" not in str(told.value)


def test_a_palette_with_transparency_warns_nobody(tmp_path, recwarn):
    palette = Image.fromarray((VALUES[:, :, :3] // 40).astype(np.uint8)).quantize(16)
    content = io.BytesIO()
    palette.save(content, "PNG", transparency=bytes(range(16)))
    (tmp_path / "a.png").write_bytes(content.getvalue())
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png"), np.array(palette.convert("RGB")))
    assert not recwarn.list
