"""Which files are pictures by their names."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

SUFFIXES = ("jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "jp2", "gif")


def has_picture_suffix(file: str | Path) -> bool:
    """Whether a file is named as a picture, in upper or lower case."""
    return suffix(file) in SUFFIXES


def suffix(file: str | Path) -> str:
    """A file's suffix in lower case, without the dot."""
    return Path(file).suffix.lower()[1:]


def left_out(files: Iterable[str | Path]) -> str | None:
    """A line that counts the files that are no pictures by their names, by suffix; None where all are."""
    counts = Counter(suffix(file) for file in files if not has_picture_suffix(file))
    if not counts:
        return None
    named = ", ".join(f"{count} {'.' + kind if kind else 'without suffix'}" for kind, count in counts.most_common(8))
    return f"{sum(counts.values())} files are no pictures by their names ({named}): left out"
