"""Which files are pictures by their names."""

from pathlib import Path

SUFFIXES = ("jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "jp2", "gif")


def has_picture_suffix(file: str | Path) -> bool:
    """Whether a file is named as a picture, in upper or lower case."""
    return suffix(file) in SUFFIXES


def suffix(file: str | Path) -> str:
    """A file's suffix in lower case, without the dot."""
    return Path(file).suffix.lower()[1:]
