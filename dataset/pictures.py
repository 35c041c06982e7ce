"""Picture files: their pixels, uint8 `[H, W, 3]`."""

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from utils.errors import InputError, reason
from utils.files import PICTURE_BYTES, PICTURE_FORMATS, read_bytes

if TYPE_CHECKING:
    from utils.config import Config
    from utils.prior_config import PriorConfig

_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of the size in a baseline, an extended and a progressive file
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # beyond, Pillow takes a picture for an attack


class PictureRule(NamedTuple):
    """What is made of pictures that are not three channels of 8 bits (`dataset/deep_pictures.py`)."""

    deep: str = "refuse"  # more than 8 bits a channel: refuse, minmax, percentile LOW-HIGH, divide NUMBER
    bands: tuple[int, ...] | None = None  # the three to take, counted from 1; None: the first three


USUAL = PictureRule()


def picture_rule(config: "Config | PriorConfig") -> PictureRule:
    """What a config makes of pictures of 16 bits or many bands."""
    return PictureRule(config.deep_pictures, config.bands)


def load_picture(path: str | Path, rule: PictureRule = USUAL) -> ndarray:
    """The RGB picture at `path`, uint8 `[H, W, 3]`; `InputError` naming the file where it cannot be read."""
    return decode_picture(read_file(path), path, rule)


def read_file(path: str | Path) -> bytes:
    """The bytes of a picture's file; `InputError` naming it where it cannot be read."""
    try:
        return read_bytes(path, PICTURE_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}") from None


def decode_picture(data: bytes, name: str | Path, rule: PictureRule = USUAL) -> ndarray:
    """The RGB picture that a file holds, uint8 `[H, W, 3]`; `InputError` naming it where it cannot be read."""
    if rule.bands is None and _is_usual_jpeg(data):
        import torch  # here, since what only asks for names and suffixes need not wait seconds for it
        from torchvision.io import ImageReadMode, decode_jpeg

        try:  # torchvision's decoder: Pillow's very pixels in two thirds of the time
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_jpeg(encoded, ImageReadMode.RGB, apply_exif_orientation=True).permute(1, 2, 0).numpy()
        except RuntimeError:
            pass  # damaged: Pillow is the judge
    from dataset.quiet import quiet  # here, as most pictures are read above

    try:
        with quiet(), opened(io.BytesIO(data), name, rule) as image:
            if rule.bands is None and not is_deep(image):
                return np.array(upright_rgb(image))
            image.load()  # whether it is whole
    except InputError:
        raise
    except Exception as error:  # a file of another kind, or a damaged one, raises nearly anything
        if rule == USUAL or not isinstance(error, UnidentifiedImageError):  # Pillow knows no 16-bit TIFF of many bands
            raise InputError(f"cannot read the picture {name}: {reason(error)}") from None
    from dataset.deep_pictures import decode_deep  # brings a reader of TIFF, for those who have such

    return decode_deep(data, str(name), rule)


def rgb_pixels(image: Image.Image, name: str | Path) -> ndarray:
    """An opened picture's pixels, upright, uint8 `[H, W, 3]`; `InputError` naming it where it is deep or damaged."""
    if is_deep(image):
        raise InputError(f"{name} has more than 8 bits a channel: convert it to 8 bits, or give its file")
    try:
        return np.array(upright_rgb(image))
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        raise InputError(f"cannot read the picture {name}: {reason(error)}") from None


def opened(file: str | io.BytesIO, name: str | Path, rule: PictureRule) -> ImageFile:
    """An opened picture, none of it decoded; `InputError` where the rule refuses its depth."""
    image = Image.open(file, formats=PICTURE_FORMATS)
    if rule.deep == "refuse" and is_deep(image):
        image.close()
        raise InputError(f"{name} has more than 8 bits a channel: convert it to 8 bits, or set deep_pictures")
    return image


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as people see it: turned as its EXIF orientation says, in RGB."""
    return ImageOps.exif_transpose(image).convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture has more than 8 bits a channel, which Pillow clips to white or cuts to almost black."""
    if image.mode.startswith(("I", "F")):
        return True
    if isinstance(image, Jpeg2KImageFile) and image.fp:  # of which Pillow tells no depth
        from dataset.deep_pictures import jpeg2000_bits

        return jpeg2000_bits(image) > 8
    tile = getattr(image, "tile", None)  # Pillow gives a 16-bit RGB file the mode RGB
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
            return bits == 8 and channels == 3 and height * width <= MOST_PIXELS
        position += 2 + length
    return False
