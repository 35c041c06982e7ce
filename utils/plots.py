"""Figures of matplotlib as PNG files that are there whole or not at all."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from utils.files import write_whole


@contextmanager
def png_figure(
    file: Path, width: float, height: float, *, dpi: int, bbox_inches: str | None = None
) -> Iterator[Figure]:
    """A figure of `width` by `height` inches to draw on, written to `file` at the end; bbox_inches: as of `savefig`.

    Titles and names are shown as they are written: a `$` in one starts no formula.
    """
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=dpi, bbox_inches=bbox_inches)
    write_whole(file, content.getvalue())
