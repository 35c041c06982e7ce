"""The picture of retrieved examples: what it shows, read back from its pixels and from the text drawn on it."""

import colorsys
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor, ImageDraw

from utils import examples
from utils.errors import InputError
from utils.examples import FRAME, GREEN, MARGIN, PAPER, draw_examples

GREEN_RGB = ImageColor.getrgb(GREEN)
PICTURES = 8
COLOURS = [tuple(round(255 * x) for x in colorsys.hsv_to_rgb(i / PICTURES, 0.8, 0.8)) for i in range(PICTURES)]


@pytest.fixture
def written(monkeypatch):
    """Every line of text that is drawn, with its colour; each must fit the box it is drawn in."""
    lines, draw = [], ImageDraw.ImageDraw.text

    def record(pen, at, text, *, fill, font):
        assert at[0] + font.getlength(text) <= pen.im.size[0]
        lines.append((text, fill))
        draw(pen, at, text, fill=fill, font=font)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return lines


@pytest.fixture
def pictures(tmp_path):
    """Plain pictures, each of a colour of its own."""
    return plain(tmp_path / "pictures", [(60, 60)] * PICTURES)


def plain(folder, sizes, suffix=".png"):
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}{suffix}" for i in range(len(sizes))]
    for file, size, colour in zip(files, sizes, COLOURS, strict=False):
        Image.new("RGB", size, colour).save(file)
    return files


def draw(file, images, image_embeds, text_embeds, own=None, captions=None, **options):
    own = list(range(len(images))) if own is None else own
    captions = captions or [f"caption{i}" for i in range(len(own))]
    draw_examples(
        file,
        images=images,
        captions=captions,
        own_image_of_text=own,
        image_embeds=image_embeds,
        text_embeds=text_embeds,
        title="the title",
        **options,
    )
    with Image.open(file) as opened:
        return np.array(opened)  # [H, W, 3]


def places(page, colour):
    """Rows and columns of the pixels of this colour, `[n]` each."""
    return np.nonzero((page == colour).all(axis=2))


def halves(page):
    middle = page.shape[1] // 2
    return page[:, :middle], page[:, middle:]


def shown(half):
    """The pictures a half shows, by row of the page and then from left to right: (number, framed in green)."""
    found = []
    for i, colour in enumerate(COLOURS):
        y, x = places(half, colour)
        for row in np.unique(y[np.diff(y, prepend=-99) > 1]):  # the first line of pixels of each time it is shown
            below = row + 40  # a line below the tick in the corner
            left = x[y == below].min()
            found.append((row, left, i, tuple(half[below, left - 1]) == GREEN_RGB))
    return [(i, framed) for _, _, i, framed in sorted(found)]


def order_embeds(order):
    """Embeddings in which every caption has the pictures, and every picture the captions, in this order."""
    strength = torch.zeros(len(order))
    strength[order] = torch.arange(len(order), 0, -1.0)
    return torch.stack([strength, torch.ones(len(order))], dim=1)


def test_a_caption_shows_its_best_pictures_in_order_with_the_right_one_framed(tmp_path, pictures):
    order = [3, 1, 6, 0, 7, 2, 5, 4]
    texts = torch.tensor([[1.0, 0.0]]).repeat(PICTURES, 1)
    for own, framed in ((6, 2), (5, None)):
        page = draw(tmp_path / "e.png", pictures, order_embeds(order), texts[:1], own=[own], count=1)
        assert shown(halves(page)[0]) == [(i, place == framed) for place, i in enumerate(order[:5])]


def test_the_rank_of_the_right_picture_is_told(tmp_path, pictures, written):
    draw(tmp_path / "e.png", pictures, order_embeds([3, 1, 6, 0, 7, 2, 5, 4]), torch.tensor([[1.0, 0.0]]), own=[5])
    assert "the right picture is at rank 7 of 8" in [text for text, _ in written]


def test_a_picture_shows_its_best_captions_in_order_with_its_own_in_green_and_ticked(
    tmp_path, pictures, written, monkeypatch
):
    ticks, tick = [], examples._tick
    monkeypatch.setattr(examples, "_tick", lambda *colours: (ticks.append(colours), tick(*colours))[1])
    order, own = [3, 1, 6, 0, 7, 2, 5, 4], [0, 0, 0, 0, 0, 0, 0, 0]
    page = draw(tmp_path / "e.png", pictures[:1], torch.tensor([[1.0, 0.0]]), order_embeds(order), own, count=1)
    assert [text for text, ink in written if ink == GREEN] == [f"caption{i}" for i in order[:5]]
    assert ticks.count((GREEN, PAPER)) == 5
    assert [i for i, _ in shown(halves(page)[1])] == [0]


@pytest.mark.parametrize(("place", "rank"), [(0, 1), (4, 5), (6, 7)])
def test_the_rank_of_the_best_own_caption_is_told_and_only_own_captions_are_green(
    tmp_path, pictures, written, place, rank
):
    order = [3, 1, 6, 0, 7, 2, 5, 4]
    own = [1] * PICTURES
    own[order[place]] = own[order[7]] = 0
    image_embeds = torch.tensor([[1.0, 0.0]]).repeat(2, 1)
    draw(tmp_path / "e.png", pictures[:2], image_embeds, order_embeds(order), own)
    texts = [text for text, _ in written]
    assert f"the best of its own captions is at rank {rank} of 8" in texts
    start = texts.index("Image to text")
    first_row = written[start : texts.index(f"the best of its own captions is at rank {rank} of 8")]
    captions = [(text, ink == GREEN) for text, ink in first_row if text.startswith("caption")][:5]
    assert captions == [(f"caption{i}", own[i] == 0) for i in order[:5]]


def test_equal_scores_stand_in_the_order_the_ranks_count(tmp_path, pictures, written):
    page = draw(tmp_path / "e.png", pictures, torch.ones(PICTURES, 2), torch.ones(1, 2), own=[2])
    assert shown(halves(page)[0]) == [(0, False), (1, False), (2, True), (3, False), (4, False)]
    assert "the right picture is at rank 3 of 8" in [text for text, _ in written]


def test_examples_are_of_different_pictures_spread_over_the_set(tmp_path, pictures, written):
    own = [i for i in range(PICTURES) for _ in range(3)]
    captions = [f"caption of {i}" for i in own]
    embeds = torch.eye(PICTURES)
    page = draw(tmp_path / "e.png", pictures, embeds, embeds[own], own, captions, count=4, top=1)
    texts = [text for text, _ in written]
    asked = [int(text.split()[-1]) for text in texts[: texts.index("Image to text")] if text.startswith("caption of")]
    assert [i // 2 for i in asked] == [0, 1, 2, 3]
    assert [i // 2 for i, _ in shown(halves(page)[1])] == [0, 1, 2, 3]


def test_the_same_seed_draws_the_same_examples_and_another_seed_others(tmp_path, pictures):
    embeds = torch.randn(PICTURES, 4, generator=torch.Generator().manual_seed(0))
    pages = [draw(tmp_path / "e.png", pictures, embeds, embeds, count=3, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(pages[0], pages[1])
    assert shown(pages[0]) != shown(pages[2])


def test_drawing_leaves_the_random_numbers_of_the_run_alone(tmp_path, pictures):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    draw(tmp_path / "e.png", pictures, torch.eye(PICTURES), torch.eye(PICTURES))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_pictures_than_asked_for_are_all_shown(tmp_path, pictures, count):
    embeds = torch.eye(count)
    left, right = halves(draw(tmp_path / "e.png", pictures[:count], embeds, embeds))
    assert sorted(i for i, _ in shown(left)) == sorted(list(range(count)) * count)
    assert [i for i, framed in shown(left) if framed] == list(range(count))
    assert [i for i, _ in shown(right)] == list(range(count))


def test_a_picture_keeps_its_shape(tmp_path):
    file = plain(tmp_path / "pictures", [(300, 100)])[0]
    left, right = halves(draw(tmp_path / "e.png", [file], torch.ones(1, 2), torch.ones(1, 2)))
    for half in (left, right):
        y, x = places(half, COLOURS[0])
        assert (np.ptp(x) + 1) / (np.ptp(y) + 1) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_the_picture_formats_of_the_published_sets_are_drawn(tmp_path, suffix):
    file = plain(tmp_path / "pictures", [(64, 64)], suffix)[0]
    left, _ = halves(draw(tmp_path / "e.png", [file], torch.ones(1, 2), torch.ones(1, 2)))
    near = (abs(left.astype(int) - COLOURS[0]) <= 3).all(axis=2)
    assert near.sum() > 100 * 100


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_pictures_of_any_colour_mode_are_drawn(tmp_path, mode):
    file = tmp_path / "p.tif"
    Image.new("RGB", (64, 64), (102, 102, 102)).convert(mode).save(file)
    left, _ = halves(draw(tmp_path / "e.png", [file], torch.ones(1, 2), torch.ones(1, 2)))
    assert len(places(left, (102, 102, 102))[0]) > 100 * 100


@pytest.mark.parametrize(
    "caption",
    [" ".join(["extraordinarily", "residential", "neighbourhood"] * 10), "w" * 400, "a " + "w" * 400 + " b"],
)
def test_long_captions_are_wrapped_whole_and_nothing_reaches_the_margins(tmp_path, pictures, written, caption):
    page = draw(tmp_path / "e.png", pictures[:1], torch.ones(1, 2), torch.ones(5, 2), [0] * 5, [caption] * 5, count=1)
    for edge in (page[:MARGIN], page[-MARGIN:], page[:, :MARGIN], page[:, -MARGIN:]):
        assert (edge == 255).all()
    green = "".join(text for text, ink in written if ink == GREEN)
    assert green.replace(" ", "") == 5 * caption.replace(" ", "")
    middle = page.shape[1] // 2
    assert (page[:, middle - MARGIN + 1 : middle + MARGIN - 1] == 255).all()  # neither half reaches into the other


def test_lines_of_text_stand_clear_of_each_other(tmp_path, pictures):
    tall = " ".join(["Ågjpqy|ÄÖ"] * 30)
    page = draw(tmp_path / "e.png", pictures[:1], torch.ones(1, 2), torch.ones(5, 2), [0] * 5, [tall] * 5, count=1)
    column = page[:, -300:-MARGIN]
    inked = (column == GREEN_RGB).all(axis=2).any(axis=1)
    assert (np.diff(inked.astype(int)) == 1).sum() >= 5 * 6  # lines of green, each after a line without


def test_accented_letters_have_shapes_of_their_own():
    font = examples._font(17)
    shapes = {bytes(font.getmask(letter)) for letter in "eéèñüßłαж\uffff"}
    assert len(shapes) == 10


def test_embeddings_may_be_bfloat16(tmp_path, pictures):
    embeds = torch.eye(PICTURES, dtype=torch.bfloat16)
    left, _ = halves(draw(tmp_path / "e.png", pictures, embeds, embeds, top=1))
    assert all(framed for _, framed in shown(left))


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\nbroken"])
def test_a_picture_that_cannot_be_read_is_named_in_one_line(tmp_path, pictures, content):
    lost = tmp_path / "lost.png"
    if content is not None:
        lost.write_bytes(content)
    with pytest.raises(InputError, match=r"lost\.png") as error:
        draw(tmp_path / "e.png", [lost], torch.ones(1, 2), torch.ones(1, 2))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "e.png").exists()


def test_the_file_is_written_whole_or_not_at_all(tmp_path, pictures, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    draw(out / "e.png", pictures, torch.eye(PICTURES), torch.eye(PICTURES))
    assert os.listdir(out) == ["e.png"]
    before = (out / "e.png").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        draw(out / "e.png", pictures, torch.eye(PICTURES), torch.eye(PICTURES), seed=1)
    assert (out / "e.png").read_bytes() == before


def test_a_frame_is_as_wide_as_it_says(tmp_path, pictures):
    left, _ = halves(draw(tmp_path / "e.png", pictures[:1], torch.ones(1, 2), torch.ones(1, 2)))
    y, x = places(left, COLOURS[0])
    row = left[y.max() - 5]
    assert [tuple(pixel) for pixel in row[x.min() - FRAME : x.min()]] == [GREEN_RGB] * FRAME
    assert tuple(row[x.min() - FRAME - 1]) == ImageColor.getrgb(PAPER)


def test_photographs_with_their_captions_are_drawn_in_seconds(tmp_path):
    root = Path(__file__).parents[2] / "shared" / "data" / "rsicd_mini"
    if not root.is_dir():
        pytest.skip("the RSICD extract is not here")
    items = json.loads((root / "dataset_rsicd.json").read_text(encoding="utf-8"))["images"]
    items = [item for item in items if item["split"] == "test"]
    own = [i for i, item in enumerate(items) for _ in item["sentences"]]
    embeds = torch.randn(len(items), 32, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    page = draw(
        tmp_path / "e.png",
        [root / "images" / item["filename"] for item in items],
        embeds,
        embeds[own],
        own,
        [sentence["raw"] for item in items for sentence in item["sentences"]],
    )
    assert time.perf_counter() - started < 5
    assert len(np.unique(page @ np.array([65536, 256, 1]))) > 10_000  # colours: photographs, not blanks
