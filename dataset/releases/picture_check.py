"""Every picture read once: is it whole, of which mode and size, its checksum and its perceptual hash."""

import hashlib
import io
import logging
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from dataset.pictures import USUAL, PictureRule, decode_picture, is_deep, upright_rgb
from dataset.releases.perceptual_hash import turned_hashes
from utils.errors import InputError, reason
from utils.files import PICTURE_FORMATS

UPRIGHT = 1  # EXIF's orientation of a picture that is not to be turned


class PictureCheck(NamedTuple):
    """What one picture file was found to be; without `hashes` where it is unreadable or too deep."""

    checksum: str  # SHA-256 of the file, in hexadecimal
    size: tuple[int, int] = (0, 0)  # width, height; 0 where it is unreadable
    form: str = ""  # what it is other than RGB of 8 bits
    unreadable: str = ""  # why
    deep: bool = False  # more than 8 bits a channel, and no rule that makes 8 of them
    orientation: int = UPRIGHT  # EXIF's; `size` is that of the upright picture
    hashes: np.ndarray = np.empty((0, 4), np.uint64)  # [8, 4], one row a turn


def check_pictures(image_root: Path, files: Sequence[str], rule: PictureRule = USUAL) -> dict[str, PictureCheck]:
    """Check the pictures under `image_root`, decoding each in full as the rule says and telling progress."""
    from utils.logs import progress  # brings torch, which --help has no use for

    # Pillow reports a TIFF of many bands on stderr too; here it is a named defect.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    return {file: check_picture(image_root / file, rule) for file in progress(files, len(files), "checking pictures")}


def check_picture(path: Path, rule: PictureRule = USUAL) -> PictureCheck:
    """Read and decode one picture; whatever is wrong with it is in the result, never raised."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            return PictureCheck("", unreadable="is no regular file")
        content = path.read_bytes()
    except OSError as error:
        return PictureCheck("", unreadable=error.strerror or reason(error))
    checksum = hashlib.sha256(content).hexdigest()
    try:
        with warnings.catch_warnings(action="ignore"):
            return _checked(content, checksum, path, rule)
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        return PictureCheck(checksum, unreadable=reason(error))


def _checked(content: bytes, checksum: str, path: Path, rule: PictureRule) -> PictureCheck:
    rgb, orientation = None, UPRIGHT
    try:
        with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as image:
            form, deep = _form(image)
            if deep and rule.deep == "refuse":
                return PictureCheck(checksum, image.size, form, deep=True)
            if rule == USUAL:
                rgb = upright_rgb(image)  # a file that is cut short is found here, not when it is opened
            orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except UnidentifiedImageError:
        if rule == USUAL:
            if content[:2] in (b"II", b"MM"):
                return PictureCheck(checksum, unreadable="a TIFF that needs --deep_pictures or --bands, or is damaged")
            raise
        form = "TIFF of many bands"  # which Pillow does not know
    if rgb is None:
        try:
            rgb = Image.fromarray(decode_picture(content, path, rule))
        except InputError as error:
            return PictureCheck(checksum, unreadable=str(error).removeprefix(f"cannot read the picture {path}: "))
    return PictureCheck(checksum, rgb.size, form, orientation=orientation, hashes=turned_hashes(rgb))


def _form(image: ImageFile) -> tuple[str, bool]:
    """What an opened picture is other than RGB of 8 bits, and whether it has more than 8 bits a channel."""
    if is_deep(image):
        return f"{image.mode}, more than 8 bits a channel", True
    bands = getattr(image, "tag_v2", {}).get(277, 1)  # TIFF's samples per pixel
    if image.mode == "RGB":
        return f"TIFF of {bands} bands, the first three read" if bands > 3 else "", False
    names = {"P": "palette", "L": "grey", "LA": "grey with alpha", "RGBA": "alpha", "1": "black and white"}
    return names.get(image.mode, image.mode), False
