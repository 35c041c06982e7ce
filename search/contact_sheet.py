"""The contact sheet: a PNG of the tiles that answer a query, best first, with rank, score and place in their file."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from search.query import Hit
from utils.errors import printable
from utils.examples import FAINT, INK, PAPER, RULE, font_with
from utils.files import write_whole

SIDE, GAP, MARGIN = 224, 16, 32  # pixels
LINE, NAME = 22, 16  # heights of a line of text and of its letters
ACROSS = 5
MOST = 500  # tiles on a sheet


def draw_contact_sheet(
    file: Path, answers: Sequence[tuple[str, Sequence[Hit]]], read: Callable[[Hit], ndarray]
) -> None:
    """Write the hits of each query, under its name, as a PNG, or a JPEG where `file` ends in .jpg.

    After `MOST` tiles it ends. read: gives a tile's pixels, uint8 `[H, W, 3]`; what it raises is raised. The file is
    written whole or not at all.
    """
    left, sections = MOST, list[tuple[str, Sequence[Hit]]]()
    for title, hits in answers:
        if left > 0:
            sections.append((title if hits else f"{title}: nothing found", hits[:left]))
            left -= len(hits)
    across = max(1, min(ACROSS, max(len(hits) for _, hits in sections)))
    heights = [2 * LINE + -(-len(hits) // across) * (SIDE + 2 * LINE + GAP) for _, hits in sections]
    width = max(across * (SIDE + GAP) - GAP, 3 * SIDE)
    sheet = Image.new("RGB", (width + 2 * MARGIN, sum(heights) + 2 * MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for (title, hits), height in zip(sections, heights, strict=True):
        _write(pen, (MARGIN, top), title, width, INK, 22)
        for rank, hit in enumerate(hits, 1):
            x = MARGIN + (rank - 1) % across * (SIDE + GAP)
            y = top + 2 * LINE + (rank - 1) // across * (SIDE + 2 * LINE + GAP)
            at = "" if hit.tile.whole else f"   at {hit.tile.window[0]}, {hit.tile.window[1]}"
            thumbnail = ImageOps.contain(Image.fromarray(read(hit)), (SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(ImageOps.pad(thumbnail, (SIDE, SIDE), color=RULE), (x, y))
            _write(pen, (x, y + SIDE + 4), f"{rank}   {hit.score:.3f}{at}", SIDE, INK, NAME)
            _write(pen, (x, y + SIDE + 4 + LINE), Path(hit.file.path).name, SIDE, FAINT, NAME)
        top += height
    content = io.BytesIO()
    sheet.save(content, **({"format": "JPEG", "quality": 85} if file.suffix.lower() == ".jpg" else {"format": "PNG"}))
    write_whole(file, content.getvalue())


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, ink: str, size: int) -> None:
    """A line of text, cut in the middle where it is wider than `width`: names differ at their ends."""
    text = printable(text)
    font = ImageFont.truetype(str(font_with(frozenset(text.replace(" ", "")))), size)
    kept = len(text)
    shown = text
    while kept > 2 and font.getlength(shown) > width:
        kept = min(kept - 1, int(kept * width / font.getlength(shown)) + 1)
        shown = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    pen.text(at, shown, fill=ink, font=font)
