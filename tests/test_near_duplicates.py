"""Which pairs of pictures count as the same view."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dataset.releases.near_duplicates import Hashed, agreement, near_duplicates, registered, thumbnail
from dataset.releases.perceptual_hash import TURNS, distances, hash_from_text, hash_text, turned, turned_hashes

RSICD_MINI = Path(__file__).parents[2] / "shared" / "data" / "rsicd_mini"
T = Image.Transpose


def scene(name, size=160):
    """A picture with structure of every size, as ground has it, from a name."""
    rng = np.random.default_rng(sum(name.encode()))
    total = np.zeros((size, size, 3))
    for cells in (5, 10, 20, 40, 80):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((total / 5).astype(np.uint8))


def compressed(image, quality):
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return Image.open(io.BytesIO(written.getvalue())).convert("RGB")


def found(folder, first, second):
    first.save(folder / "first.png")
    second.save(folder / "second.png")
    hashes = np.stack([turned_hashes(first), turned_hashes(second)])
    return near_duplicates(Hashed(["first.png", "second.png"], folder, hashes))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: compressed(image, 30),
        lambda image: image.resize((100, 100)),
        lambda image: compressed(ImageEnhance.Brightness(image).enhance(1.3), 75),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.crop((3, 3, 160, 160)),
    ],
    ids=["copy", "JPEG", "smaller", "brighter", "grey", "shifted"],
)
def test_changed_copies_are_found(tmp_path, change):
    (pair,) = found(tmp_path, scene("one"), change(scene("one")))
    assert (pair.first, pair.second, pair.turn) == (0, 1, "as it is")


@pytest.mark.parametrize("turn", TURNS)
def test_turned_copies_are_found_with_their_turn(tmp_path, turn):
    (pair,) = found(tmp_path, scene("one"), turned(scene("one"), turn))
    assert pair.turn == turn and pair.distance <= 8 and pair.blocks > 0.95


def test_different_pictures_are_not(tmp_path):
    assert found(tmp_path, scene("one"), scene("two")) == []


@pytest.mark.parametrize(("bits", "same"), [(48, 1), (50, 0)])
def test_look_alikes_by_hash_are_told_apart_by_their_pixels(tmp_path, bits, same):
    """Two beaches: the same two halves, other ground, and hashes so many bits apart."""

    def beach(name):
        pixels = 0.35 * np.asarray(scene(name), np.float32)
        pixels[:, :80] += 150
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    hashes = np.stack([turned_hashes(beach("one"))] * 2)
    hashes[1, 0, 0] ^= np.uint64(2**bits - 1)
    for name in ("one", "two"):
        beach(name).save(tmp_path / f"{name}.png")
    assert len(near_duplicates(Hashed(["one.png", "two.png"], tmp_path, hashes))) == same
    assert len(near_duplicates(Hashed(["one.png", "two.png"], tmp_path / "gone", hashes))) == same


def test_the_same_coarse_shape_is_not_enough():
    """Every block agrees, but no shift of one picture gives the other: two pale stadiums."""
    across = np.linspace(-1, 1, 128)
    dome = 120 - 80 * np.hypot(across[:, None], across)
    noise = np.random.default_rng(0).normal(0, 3, (2, 128, 128))
    first, second = (dome + noise).astype(np.float32)
    assert agreement(first, first + 5) > 0.9
    assert agreement(first, second) is None


def test_one_object_in_the_same_place_is_not_enough():
    """Two tanks of one make on different ground: the peak is high, the blocks around do not agree."""
    first, second = (np.array(scene(name, 128).convert("L"), np.float32) for name in ("one", "two"))
    first[30:80, 30:80] = second[30:80, 30:80] = np.asarray(scene("tank", 50).convert("L"))
    assert registered(first, second)[2] >= 18
    assert agreement(first, second) is None


@pytest.mark.parametrize(("bits", "same"), [(48, 1), (50, 0)])
def test_a_picture_that_cannot_be_read_any_more_is_told_by_its_hash(tmp_path, bits, same):
    scene("one").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    hashes = turned_hashes(scene("one"))[None]
    theirs = hashes[:, :1] ^ np.array([2**bits - 1, 0, 0, 0], np.uint64)
    found = near_duplicates(Hashed(["a.png"], tmp_path, hashes), Hashed(["b.png"], tmp_path, theirs))
    assert [(pair.distance, pair.blocks) for pair in found] == [(bits, None)] * same


def test_pictures_of_one_colour_are_compared_too(tmp_path):
    grey = Image.new("RGB", (64, 64), (120,) * 3)
    assert [pair.blocks for pair in found(tmp_path, grey, grey)] == [1.0]
    assert agreement(np.zeros((128, 128), np.float32), np.full((128, 128), 60, np.float32)) is None


def test_a_shift_is_measured(tmp_path):
    scene("one").save(tmp_path / "a.png")
    pixels = np.asarray(thumbnail(tmp_path / "a.png"), np.float32)
    moved = np.roll(pixels, (-7, 4), axis=(0, 1))
    down, right, peak = registered(pixels, moved)
    assert (down, right) == (7, -4) and peak > 18
    assert agreement(pixels, moved) > 0.9


def test_a_hash_survives_its_text():
    bits = turned_hashes(scene("one"))[0]
    assert np.array_equal(hash_from_text(hash_text(bits)), bits)
    assert len(hash_text(bits)) == 64
    with pytest.raises(ValueError):
        hash_from_text("ff")


def test_distances_count_bits():
    zero, one = np.zeros((1, 4), np.uint64), np.full((1, 4), 2**64 - 1, np.uint64)
    three = np.array([[1, 2, 4, 0]], np.uint64)
    assert distances(zero, np.concatenate([zero, one, three])).tolist() == [[0, 256, 3]]


def test_real_look_alikes_are_told_apart():
    if not RSICD_MINI.exists():
        pytest.skip("RSICD is not here")
    names = sorted(path.name for path in (RSICD_MINI / "images").glob("b*_1*.jpg"))[:60]
    pixels = [np.asarray(thumbnail(RSICD_MINI / "images" / name), np.float32) for name in names]
    assert all(agreement(first, second) is None for at, first in enumerate(pixels) for second in pixels[:at])
