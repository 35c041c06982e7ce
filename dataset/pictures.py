"""What every reader of picture files goes by: suffixes, modes too deep to take, names that lead out of a folder."""

import os
from pathlib import Path

SUFFIXES = ("jpg", "jpeg", "png", "tif", "tiff", "bmp")
DEEP_MODES = ("I", "F")  # Pillow's, of more than 8 bits a channel: it clips these to white instead of scaling


def has_picture_suffix(file: str | Path) -> bool:
    """Whether a file is named as a picture, in upper or lower case."""
    return suffix(file) in SUFFIXES


def suffix(file: str | Path) -> str:
    """A file's suffix in lower case, without the dot."""
    return Path(file).suffix.lower()[1:]


def leads_outside(name: str) -> bool:
    """Whether a path, read from a folder, leaves that folder."""
    normal = os.path.normpath(name)
    return os.path.isabs(normal) or normal.split(os.sep)[0] == os.pardir
