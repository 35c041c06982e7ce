"""Pictures of 16 bits or of many bands -> uint8 `[H, W, 3]`, by the rule that a config names.

`minmax` and `percentile 2-98` stretch each band of each picture by its own values; `divide 40` divides every value by
one number, so that pictures stay comparable. Bands of 8 bits are taken as they are.
"""

import io

import cv2
import numpy as np
import tifffile
from numpy import ndarray
from PIL import Image
from PIL.ImageFile import ImageFile

from dataset.pictures import MOST_PIXELS, PictureRule, upright_rgb
from utils.errors import InputError, reason
from utils.files import PICTURE_FORMATS

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHER_DEEP = (b"\x89PNG", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")  # PNG, JPEG 2000
_JPEG_2000_HEADER = 1 << 20  # bytes; maps and texts may stand before the codestream
_ORIENTATION = 274  # EXIF's and TIFF's tag
# EXIF's orientation -> how the stored rows and columns become the upright picture's
_TURNS = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


def decode_deep(data: bytes, name: str, rule: PictureRule) -> ndarray:
    """The picture that a file's bytes hold, uint8 `[H, W, 3]`, by the rule; `InputError` naming it where it cannot."""
    try:
        bands = _bands(data)  # [H, W, C]
    except InputError as error:
        raise InputError(f"cannot read the picture {name}: {error}") from None
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        raise InputError(f"cannot read the picture {name}: {reason(error)}") from None
    if bands.dtype != np.uint8 and rule.deep == "refuse":
        raise InputError(f"{name} has more than 8 bits a channel: convert it to 8 bits, or set deep_pictures")
    count = bands.shape[2]
    if rule.bands and max(rule.bands) > count:
        raise InputError(f"{name} has {count} bands, 'bands' names {max(rule.bands)}")
    chosen = [band - 1 for band in rule.bands] if rule.bands else [0, 1, 2] if count > 2 else [0, 0, 0]
    return np.ascontiguousarray(scaled(bands[:, :, chosen], rule.deep))


def scaled(bands: ndarray, rule: str) -> ndarray:
    """Values `[H, W, C]` as uint8, each band for itself; those of 8 bits as they are. What is not finite becomes 0."""
    if bands.dtype == np.uint8:
        return bands
    if rule.startswith("divide"):
        return _rounded(bands.astype(np.float64) / float(rule.split()[1]))
    return stretched(bands, limits(bands, rule))


def limits(bands: ndarray, rule: str) -> list[tuple[float, float]]:
    """Of each band of values `[..., C]` what becomes 0 and what 255, by the rule `minmax` or `percentile LOW-HIGH`."""
    shares = [0.0, 100.0] if rule == "minmax" else [float(share) for share in rule.split()[1].split("-")]
    found = []
    for band in np.moveaxis(bands, -1, 0):
        inside = band[np.isfinite(band)].astype(np.float64)
        low, high = np.percentile(inside, shares) if inside.size else (0.0, 1.0)
        found.append((float(low), float(high)))
    return found


def stretched(bands: ndarray, limits: list[tuple[float, float]]) -> ndarray:
    """Values `[H, W, C]` as uint8, each band between its limits. What is not finite becomes 0."""
    values = bands.astype(np.float64)
    for band, (low, high) in enumerate(limits):
        values[:, :, band] = (values[:, :, band] - low) * (255 / (high - low) if high > low else 0.0)
    return _rounded(values)


def _rounded(values: ndarray) -> ndarray:
    return np.rint(np.clip(np.where(np.isfinite(values), values, 0), 0, 255)).astype(np.uint8)


def turned(pixels: ndarray, orientation: int) -> ndarray:
    """Stored pixels `[H, W, C]` as people see them, by EXIF's orientation, 1 to 8; another leaves them as they are."""
    return _TURNS.get(int(orientation), lambda p: p)(pixels)


def jpeg2000_bits(image: ImageFile) -> int:
    """The bits of an opened JPEG 2000's deepest channel, as its header says; 16 where there is none to be found."""
    stream = image.fp
    assert stream is not None  # of a picture that is open
    position = stream.tell()
    stream.seek(0)
    header = stream.read(_JPEG_2000_HEADER)
    stream.seek(position)
    start = header.find(b"\xff\x4f\xff\x51")  # the codestream, whose sizes and channels come first
    channels = header[start + 42 :][: 3 * int.from_bytes(header[start + 40 : start + 42])]
    return max(((depth & 0x7F) + 1 for depth in channels[::3]), default=16) if start >= 0 else 16


def check_bands(path: str) -> None:
    """Raise `InputError` unless the file is a TIFF of a size that is read; its header alone is looked at."""
    try:
        with open(path, "rb") as stream:
            if stream.read(4) not in _TIFF:
                raise InputError("it is no picture of a known format")
            stream.seek(0)
            with tifffile.TiffFile(stream) as opened:
                _check_page(opened.pages.first)
    except Exception as error:
        what = error if isinstance(error, InputError) else reason(error)
        raise InputError(f"cannot read the picture {path}: {what}") from None


def _bands(data: bytes) -> ndarray:
    """All bands of a picture, upright, `[H, W, C]`, in the order of the file (RGB, not OpenCV's)."""
    if data[:4] in _TIFF:
        with tifffile.TiffFile(io.BytesIO(data)) as opened:
            page = opened.pages.first
            _check_page(page)
            orientation = page.tags[_ORIENTATION].value if _ORIENTATION in page.tags else 1
            if page.photometric == tifffile.PHOTOMETRIC.PALETTE or page.bitspersample < 8:
                return _by_pillow(data)
            bands = np.atleast_3d(page.asarray())
            if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
                bands = bands.transpose(1, 2, 0)
        return turned(bands, orientation)
    with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
        image.load()  # a file that is cut short is found here; OpenCV fills up what is missing
        orientation = image.getexif().get(_ORIENTATION, 1)
    if data.startswith(_OTHER_DEEP):
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if read is not None and read.dtype != np.uint8:
            bands = np.atleast_3d(np.asarray(read))
            bands = bands[:, :, [2, 1, 0, 3][: bands.shape[2]]] if bands.shape[2] > 2 else bands
            return turned(bands, orientation)
    return _by_pillow(data)


def _check_page(page: tifffile.TiffPage) -> None:
    pixels = page.imagewidth * page.imagelength
    if not 0 < pixels <= MOST_PIXELS or page.imagedepth != 1 or not 0 < page.samplesperpixel <= 512:
        raise InputError(f"it has {page.imagewidth} x {page.imagelength} pixels of {page.samplesperpixel} bands")


def _by_pillow(data: bytes) -> ndarray:
    with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
        return np.array(upright_rgb(image))
