"""Picture files: which files are pictures by their names, and their pixels, uint8 `[H, W, 3]`."""

import io
import struct
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, ImageOps

from utils.errors import InputError, reason
from utils.files import PICTURE_BYTES, PICTURE_FORMATS, read_bytes

SUFFIXES = ("jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp", "jp2", "gif")

_JPEG_2000_HEAD = 65536  # bytes in which the size and depth of a JPEG 2000 stand
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of the size in a baseline, an extended and a progressive file
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # beyond, Pillow takes a picture for an attack


def has_picture_suffix(file: str | Path) -> bool:
    """Whether a file is named as a picture, in upper or lower case."""
    return suffix(file) in SUFFIXES


def suffix(file: str | Path) -> str:
    """A file's suffix in lower case, without the dot."""
    return Path(file).suffix.lower()[1:]


def load_picture(path: str | Path) -> ndarray:
    """The RGB picture at `path`, uint8 `[H, W, 3]`; `InputError` naming the file where it cannot be read."""
    return decode_picture(read_file(path), path)


def read_file(path: str | Path) -> bytes:
    """The bytes of a picture's file; `InputError` naming it where it cannot be read."""
    try:
        return read_bytes(path, PICTURE_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}") from None


def decode_picture(data: bytes, name: str | Path) -> ndarray:
    """The RGB picture that a file holds, uint8 `[H, W, 3]`; `InputError` naming it where it cannot be read."""
    if _is_usual_jpeg(data):
        import torch  # here, since what only asks for names and suffixes need not wait seconds for it
        from torchvision.io import ImageReadMode, decode_jpeg

        try:  # torchvision's decoder: Pillow's very pixels in two thirds of the time
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_jpeg(encoded, ImageReadMode.RGB, apply_exif_orientation=True).permute(1, 2, 0).numpy()
        except RuntimeError:
            pass  # damaged: Pillow is the judge
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            return rgb_pixels(image, name)
    except InputError:
        raise
    except Exception as error:  # a file of another kind, or a damaged one, raises nearly anything
        raise InputError(f"cannot read the picture {name}: {reason(error)}") from None


def rgb_pixels(image: Image.Image, name: str | Path) -> ndarray:
    """An opened picture's pixels, upright, uint8 `[H, W, 3]`; `InputError` naming it where it is deep or damaged."""
    if is_deep(image):
        raise InputError(f"{name} has more than 8 bits a channel: convert it to 8 bits")
    try:
        return np.array(upright_rgb(image))
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        raise InputError(f"cannot read the picture {name}: {reason(error)}") from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as people see it: turned as its EXIF orientation says, in RGB."""
    return ImageOps.exif_transpose(image).convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture has more than 8 bits a channel, which Pillow clips to white or cuts to almost black."""
    if image.mode.startswith(("I", "F")):
        return True
    # Pillow gives a colour file of 16 bits the mode RGB.
    tile, file = getattr(image, "tile", None), getattr(image, "fp", None)
    if image.format == "JPEG2000" and file:
        position = file.tell()
        file.seek(0)
        head = file.read(_JPEG_2000_HEAD)
        file.seek(position)
        siz = head.find(b"\xff\x4f\xff\x51")  # the codestream's first two markers; a component's depth is 42 bytes on
        return siz >= 0 and len(head) > siz + 42 and (head[siz + 42] & 0x7F) + 1 > 8
    return ";16" in str(tile[0].args) if tile else False


def _is_usual_jpeg(data: bytes) -> bool:
    """Whether these are the bytes of a JPEG of three channels of 8 bits, of no more pixels than Pillow would read.

    Pillow's own look at the header would take a tenth of the whole decoding.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    while data[position : position + 1] == b"\xff" and len(data) >= position + 10:
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if marker in _JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            return bits == 8 and channels == 3 and height * width <= _MOST_PIXELS
        position += 2 + length
    return False
