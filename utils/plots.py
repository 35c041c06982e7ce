"""Figures of matplotlib as PNG files that are there whole or not at all."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from utils.files import write_whole


@contextmanager
def png_figure(file: Path, width: float, height: float, *, dpi: int, **saving: str) -> Iterator[Figure]:
    """A figure of `width` by `height` inches to draw on, written to `file` at the end; saving: as `savefig` takes it.

    Titles and names are shown as they are written: a `$` in one starts no formula.
    """
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=dpi, **saving)
    write_whole(file, content.getvalue())
