"""The picture a person looks at after a run: what some captions and some pictures of a set retrieve.

Every part is a small image that is set beside or below others, so nothing can overlap and heights follow the text.
"""

import io
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.ft2font import FT2Font
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from utils.errors import InputError, reason
from utils.files import PICTURE_FORMATS, write_whole
from utils.logs import say
from utils.metrics import image_ranks, text_ranks

PAPER, INK, FAINT, RULE, GREEN = "#ffffff", "#1a1a1a", "#6b6b6b", "#d5d5d5", "#0a7d32"
SIDE, QUERY_SIDE = 152, 208  # pixels; the box of a retrieved picture and of one that retrieves, frame included
FRAME, GAP, MARGIN = 5, 8, 30
TICK = 24  # width of the mark of an own caption
LEAST_WIDTH = 640  # of a half, for text to stand in
# Pillow's own font lacks accented letters; matplotlib brings one that has them.
USUAL_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def draw_examples(
    file: Path,
    *,
    images: Sequence[str | Path],
    captions: Sequence[str],
    own_image_of_text: Sequence[int],
    image_embeds: Tensor,
    text_embeds: Tensor,
    title: str,
    load: Callable[[Any], ndarray] | None = None,
    count: int = 6,
    top: int = 5,
    seed: int = 0,
) -> None:
    """Write a PNG of `count` captions with their `top` pictures and `count` pictures with their `top` captions.

    images: I files; captions: T; own_image_of_text: each caption's picture number; image_embeds `[I, D]`,
    text_embeds `[T, D]`. load: gives a picture's pixels, uint8 `[H, W, 3]`;
    None: Pillow reads it. The examples are drawn by `seed`, evenly over the set and each of another picture. What
    belongs together is green and has a tick. Raises InputError for a picture that cannot be read; the file is
    written whole or not at all.
    """
    own = torch.as_tensor(own_image_of_text)  # [T]
    captions_of = defaultdict(list)
    for text, picture in enumerate(own.tolist()):
        captions_of[picture].append(text)
    rng = random.Random(seed)
    texts = torch.tensor([rng.choice(captions_of[picture]) for picture in _spread(sorted(captions_of), count, rng)])
    pictures = torch.tensor(_spread(sorted(captions_of), count, rng))
    shown = [captions[text] for text in texts.tolist()]
    width = max(LEAST_WIDTH, top * (SIDE + GAP) - GAP)

    scores = (text_embeds[texts] @ image_embeds.T).float().cpu()  # [count, I]
    left = [_heading("Text to image", f"a caption and its best {top} pictures, the best first", width)]
    for text, best, rank in zip(texts.tolist(), _best(scores, top), image_ranks(scores, own[texts]), strict=True):
        place = f"the right picture is at rank {int(rank) + 1} of {len(images)}"
        row = [_picture(images[found], load, right=found == own_image_of_text[text]) for found in best]
        left.append(_down(_text(captions[text], width), _text(place, width, FAINT), _across(*row)))

    scores = (image_embeds[pictures] @ text_embeds.T).float().cpu()  # [count, T]
    right = [_heading("Image to text", f"a picture and its best {top} captions, the best first", width)]
    column = width - QUERY_SIDE - GAP
    for picture, best, rank in zip(
        pictures.tolist(), _best(scores, top), text_ranks(scores, pictures, own), strict=True
    ):
        place = f"the best of its own captions is at rank {int(rank) + 1} of {len(captions)}"
        found_captions = [_caption(captions[found], column, own=own_image_of_text[found] == picture) for found in best]
        shown += [captions[found] for found in best]
        query = _picture(images[picture], load, side=QUERY_SIDE)
        right.append(_across(query, _down(*found_captions, _text(place, column, FAINT), gap=4)))

    # Both halves have as many rows; a line of the page holds one of each.
    lines = [_across(*pair, gap=2 * MARGIN) for pair in zip(left, right, strict=True)]
    page = _down(_text(title, lines[0].width, size=26), *lines, gap=MARGIN)
    content = io.BytesIO()
    ImageOps.expand(page, MARGIN, PAPER).save(content, format="PNG")
    write_whole(file, content.getvalue())
    lacking = [text for text in dict.fromkeys(shown) if not _characters(font_with(_letters(text))) >= _letters(text)]
    if lacking:
        named = "; ".join(f"{text:.60}" for text in lacking[:5]) + ("; ..." if len(lacking) > 5 else "")
        say(f"warning: {file}: no installed font has all characters of {len(lacking)} captions: {named}")


def _spread(pictures: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """One picture of each of `count` equal stretches, since neighbours in a set often show the same kind of scene."""
    count = min(count, len(pictures))
    bounds = [i * len(pictures) // count for i in range(count + 1)]
    return [pictures[rng.randrange(first, end)] for first, end in pairwise(bounds)]


def _best(scores: Tensor, top: int) -> list[list[int]]:
    """The columns of the `top` highest scores of each row, ties by column as the metrics count them."""
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :top].tolist()


def _picture(
    path: str | Path, load: Callable[[Any], ndarray] | None, *, side: int = SIDE, right: bool = False
) -> Image.Image:
    """The picture whole in a square box; `right` gives it a green frame and a tick in the corner."""
    box = Image.new("RGB", (side, side), GREEN if right else PAPER)
    inside = side - 2 * FRAME
    try:
        upright = Image.fromarray(load(path)) if load else _upright(path)
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        raise InputError(f"cannot draw the picture {path}: {reason(error)}") from None
    fitted = ImageOps.contain(upright, (inside, inside), Image.Resampling.BICUBIC)
    box.paste(ImageOps.pad(fitted, (inside, inside), color=RULE), (FRAME, FRAME))
    if right:
        box.paste(_tick(PAPER, GREEN), (0, 0))
    return box


def _upright(path: str | Path) -> Image.Image:
    with warnings.catch_warnings(action="ignore"), Image.open(path, formats=PICTURE_FORMATS) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _caption(caption: str, width: int, own: bool) -> Image.Image:
    """A retrieved caption, green with a tick before it where it is the picture's own, a dot otherwise."""
    mark = _tick(GREEN, PAPER) if own else _text("·", TICK, FAINT)
    return _across(mark, _text(caption, width - TICK, GREEN if own else INK), gap=0)


def _tick(ink: str, paper: str) -> Image.Image:
    mark = Image.new("RGB", (TICK, TICK), paper)
    ImageDraw.Draw(mark).line([(4, 12), (9, 17), (17, 6)], fill=ink, width=3, joint="curve")
    return mark


def _heading(name: str, explanation: str, width: int) -> Image.Image:
    return _down(
        _text(name, width, size=21),
        _text(f"{explanation}; green with a tick: belongs together", width, FAINT),
        Image.new("RGB", (width, 2), RULE),
    )


def _text(text: str, width: int, ink: str = INK, size: int = 17) -> Image.Image:
    """The text, wrapped at `width` pixels, in a box of that width."""
    font, step = _font(size, font_with(_letters(text))), round(size * 1.3)
    lines = _wrapped(text, font, width)
    box = Image.new("RGB", (width, step * len(lines)), PAPER)
    pen = ImageDraw.Draw(box)
    for i, line in enumerate(lines):
        pen.text((0, i * step), line, fill=ink, font=font)
    return box


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text's words in lines of at most `width` pixels; a longer word is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line] or [""]


@cache
def _font(size: int, file: Path = USUAL_FONT) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)


def _letters(text: str) -> frozenset[str]:
    return frozenset("".join(text.split()))


@cache
def font_with(characters: frozenset[str]) -> Path:
    """The file of an installed font that has these characters; of the usual one where none has all of them."""
    if _characters(USUAL_FONT).issuperset(characters):
        return USUAL_FONT
    from matplotlib.font_manager import fontManager  # looks the machine's fonts up, for those who need another

    others = sorted({font.fname for font in fontManager.ttflist if "Last Resort" not in font.name})  # boxes for all
    return next((Path(file) for file in others if _characters(Path(file)).issuperset(characters)), USUAL_FONT)


@cache
def _characters(file: Path) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(str(file)).get_charmap()))
    except (OSError, RuntimeError):  # an installed file that is no font, or is gone
        return frozenset()


def _across(*parts: Image.Image, gap: int = GAP) -> Image.Image:
    """The parts side by side, aligned at the top."""
    row = Image.new("RGB", (sum(p.width + gap for p in parts) - gap, max(p.height for p in parts)), PAPER)
    x = 0
    for part in parts:
        row.paste(part, (x, 0))
        x += part.width + gap
    return row


def _down(*parts: Image.Image, gap: int = GAP) -> Image.Image:
    """The parts one below another, aligned at the left."""
    column = Image.new("RGB", (max(p.width for p in parts), sum(p.height + gap for p in parts) - gap), PAPER)
    y = 0
    for part in parts:
        column.paste(part, (0, y))
        y += part.height + gap
    return column
