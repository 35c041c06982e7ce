"""Pictures: reading, the train and the evaluation transform, uint8 all the way (the device normalises)."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from dataset.augmentation import RandAugment
from dataset.pictures import DEEP_MODES
from utils.errors import InputError, reason

Transform = Callable[[ndarray | Image.Image], Tensor]

_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of the size in a baseline, an extended and a progressive file
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # beyond, Pillow takes a picture for an attack
_QUARTER_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


def load_picture(path: str | Path) -> ndarray:
    """The RGB picture at `path`, uint8 `[H, W, 3]`; `InputError` naming the file where it cannot be read."""
    return decode_picture(read_file(path), path)


def read_file(path: str | Path) -> bytes:
    """The bytes of a picture's file; `InputError` naming it where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot read the picture {path}: {error.strerror}") from None


def decode_picture(data: bytes, name: str | Path) -> ndarray:
    """The RGB picture that a file holds, uint8 `[H, W, 3]`; `InputError` naming it where it cannot be read."""
    if _is_usual_jpeg(data):
        try:  # torchvision's decoder: Pillow's very pixels in two thirds of the time
            pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
            return pixels.permute(1, 2, 0).numpy()
        except RuntimeError:
            pass  # damaged: Pillow is the judge
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(DEEP_MODES):
                raise InputError(f"{name} has more than 8 bits a channel: convert it to 8 bits")
            return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        raise InputError(f"cannot read the picture {name}: {reason(error)}") from None


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


def train_transform(size: int, *, randaugment_ops: int = 2, quarter_turns: bool = False) -> Transform:
    """Released training transform, picture -> uint8 `[3, size, size]`, random from torch's CPU generator.

    `randaugment_ops` operations are drawn a picture (0: none). `quarter_turns` adds a turn by 0, 90, 180 or
    270 degrees: an aerial picture has no up.
    """
    steps: list[Callable[[ndarray], ndarray]] = [RandomResizedCrop(size), random_flip]
    if quarter_turns:
        steps.append(quarter_turn)
    if randaugment_ops:
        steps.append(RandAugment(randaugment_ops))
    return _Steps(steps)


def evaluation_transform(size: int) -> Transform:
    """Released evaluation transform, picture -> uint8 `[3, size, size]`: bicubic resize, no crop."""
    return _Steps([Resize(size)])


class _Steps:
    """Steps on `[H, W, 3]`, where OpenCV and the resize are fast, then the channels brought to the front."""

    def __init__(self, steps: list[Callable[[ndarray], ndarray]]) -> None:
        self.steps = steps

    def __call__(self, picture: ndarray | Image.Image) -> Tensor:
        picture = np.asarray(picture)
        for step in self.steps:
            picture = step(picture)
        channels = torch.empty((3, *picture.shape[:2]), dtype=torch.uint8)
        cv2.split(picture, tuple(channels.numpy()))  # into place; eight times as fast as torch's own copy
        return channels


class Resize:
    """Bicubic, antialiased, to `size` by `size`."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: ndarray) -> ndarray:
        """The whole picture resized; itself where it has that size already."""
        if picture.shape[:2] == (self.size, self.size):
            return picture
        # The kernel is slow to gather what does not lie in one piece, and torch warns of memory that is read-only.
        writable = np.require(picture, requirements=("C", "W"))
        resized = functional.resize(_channels_first(writable), [self.size, self.size], InterpolationMode.BICUBIC)
        return resized.permute(1, 2, 0).numpy()


class RandomResizedCrop:
    """A crop of half to all of the area and of 3:4 to 4:3, resized; what lies outside it is never computed on."""

    def __init__(self, size: int) -> None:
        self.crop = v2.RandomResizedCrop(size, scale=(0.5, 1.0))
        self.resize = Resize(size)

    def __call__(self, picture: ndarray) -> ndarray:
        """One random crop."""
        height, width = picture.shape[:2]
        box = self.crop.make_params([torch.empty((3, height, width), device="meta")])
        bottom, right = box["top"] + box["height"], box["left"] + box["width"]
        return self.resize(picture[box["top"] : bottom, box["left"] : right])


def random_flip(picture: ndarray) -> ndarray:
    """The picture mirrored left to right with probability 0.5."""
    return cv2.flip(picture, 1) if torch.rand(1) < 0.5 else picture


def quarter_turn(picture: ndarray) -> ndarray:
    """The picture turned by a random multiple of 90 degrees."""
    turn = _QUARTER_TURNS[int(torch.randint(4, ()))]
    return picture if turn is None else cv2.rotate(picture, turn)


def _channels_first(picture: ndarray) -> Tensor:
    """A view `[3, H, W]` of `[H, W, 3]`."""
    return torch.from_numpy(picture).permute(2, 0, 1)
