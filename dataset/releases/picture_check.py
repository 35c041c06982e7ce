"""Every picture read once: is it whole, of which mode and size, its checksum and its perceptual hash."""

import hashlib
import io
import logging
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.pictures import is_deep
from dataset.releases.near_duplicates import Hashed
from dataset.releases.perceptual_hash import turned_hashes
from utils.errors import reason
from utils.logs import progress


class PictureCheck(NamedTuple):
    """What one picture file was found to be; `size` and `hashes` are None where it is not read."""

    checksum: str  # SHA-256 of the file, in hexadecimal
    size: tuple[int, int] | None = None  # width, height
    form: str | None = None  # what it is other than RGB of 8 bits
    unreadable: str | None = None  # why
    deep: bool = False  # more than 8 bits a channel
    hashes: np.ndarray | None = None  # uint64 [8, 4], one row a turn


def check_pictures(image_root: Path, files: Sequence[str]) -> dict[str, PictureCheck]:
    """Check the pictures under `image_root`, decoding each in full and telling progress."""
    # Pillow reports a TIFF of many bands on stderr too; here it is a named defect.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    return {file: check_picture(image_root / file) for file in progress(files, len(files), "checking pictures")}


def hashed(image_root: Path, files: Sequence[str], checks: Mapping[str, PictureCheck]) -> Hashed:
    """The hashes of checked, readable pictures, ready to be compared."""
    return Hashed(files, image_root, np.stack([checks[file].hashes for file in files]))


def check_picture(path: Path) -> PictureCheck:
    """Read and decode one picture; whatever is wrong with it is in the result, never raised."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            return PictureCheck("", unreadable="is no regular file")
        content = path.read_bytes()
    except OSError as error:
        return PictureCheck("", unreadable=error.strerror or str(error))
    checksum = hashlib.sha256(content).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as image:
            form, deep = _form(image)
            if deep:
                return PictureCheck(checksum, image.size, form, deep=True)
            rgb = image.convert("RGB")  # a file that is cut short is found here, not when it is opened
            return PictureCheck(checksum, image.size, form, hashes=turned_hashes(rgb))
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        return PictureCheck(
            checksum, unreadable=re.sub(r" ?<_io\.BytesIO[^>]*>", "", reason(error))
        )  # it names an address


def _form(image: Image.Image) -> tuple[str | None, bool]:
    """What an opened picture is other than RGB of 8 bits, and whether it has more than 8 bits a channel."""
    if is_deep(image):
        return f"{image.mode}, more than 8 bits a channel", True
    bands = getattr(image, "tag_v2", {}).get(277, 1)  # TIFF's samples per pixel
    if image.mode == "RGB":
        return (f"TIFF of {bands} bands, the first three read" if bands > 3 else None), False
    return {"P": "palette", "L": "grey", "LA": "grey with alpha", "RGBA": "alpha", "1": "black and white"}.get(
        image.mode, image.mode
    ), False
