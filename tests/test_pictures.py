"""Picture files as people have them: depth, orientation, formats; the same in every reader."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dataset.cache import PictureCache
from dataset.picture_names import SUFFIXES
from dataset.pictures import load_picture
from models.embedder import pixels_of
from utils.errors import InputError
from utils.examples import draw_examples


def sentinel(shape):
    """Values of 0 to 10,000, as satellites give them."""
    return np.random.default_rng(0).integers(0, 250, shape).astype(np.uint16) * 40


def cached(file):
    cache = PictureCache(file.parent / "cache", file.parent)
    cache.open([str(file)])
    return cache.load(str(file))


def opened(file):
    with Image.open(file) as image:
        return pixels_of(image)


READERS = {"training": load_picture, "cache": cached, "embedding": pixels_of, "embedding, opened": opened}
EVERY_READER = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@EVERY_READER
@pytest.mark.parametrize("name", ["rgb.tif", "rgb.png", "rgba.png", "grey.tif", "grey.png", "rgb.jp2", "grey.jp2"])
def test_pictures_of_more_than_8_bits_a_channel_are_refused_not_read_nearly_black(tmp_path, read, name):
    channels = {"rgb": (3,), "rgba": (4,), "grey": ()}[name.partition(".")[0]]
    assert cv2.imwrite(str(tmp_path / name), sentinel((64, 80, *channels)))
    with pytest.raises(InputError, match="has more than 8 bits a channel"):
        read(tmp_path / name)


@EVERY_READER
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_picture_is_turned_as_its_file_says(tmp_path, read, kind, orientation):
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:, :40, 0], pixels[:30, :, 1] = 200, 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"a.{kind}", exif=exif)
    with Image.open(tmp_path / f"a.{kind}") as opened:
        upright = np.array(ImageOps.exif_transpose(opened))
    assert upright.shape[:2] == ((96, 128) if orientation < 5 else (128, 96))
    np.testing.assert_array_equal(read(tmp_path / f"a.{kind}"), upright)


def test_examples_show_a_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 400), (200, 30, 40)).save(tmp_path / "tall.jpg", exif=exif)
    Image.new("RGB", (400, 40), (200, 30, 40)).save(tmp_path / "wide.jpg")
    drawn = []
    for name in ("tall", "wide"):
        given = {"images": [tmp_path / f"{name}.jpg"], "captions": ["a"], "own_image_of_text": [0], "title": ""}
        draw_examples(tmp_path / f"{name}.png", **given, image_embeds=torch.eye(1), text_embeds=torch.eye(1))
        drawn.append(np.array(Image.open(tmp_path / f"{name}.png"), int))
    assert np.abs(drawn[0] - drawn[1]).max() < 8


def test_webp_jpeg_2000_and_gif_are_pictures_too(tmp_path):
    assert {"webp", "jp2", "gif"} <= set(SUFFIXES)
    for suffix in SUFFIXES:
        Image.new("RGB", (20, 10), (200, 30, 40)).save(tmp_path / f"a.{suffix}")
        assert load_picture(tmp_path / f"a.{suffix}").shape == (10, 20, 3)
