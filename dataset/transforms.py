"""The train and the evaluation transform, pictures `[H, W, 3]` -> uint8 `[3, size, size]` (docs/behaviour.md, 5).

uint8 all the way; the device normalises. RandAugment's ten operations are done by OpenCV, as released: the recorded
pictures come out pixel for pixel, several times as fast as by Pillow.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

Transform = Callable[[ndarray | Image.Image], Tensor]

cv2.setNumThreads(0)  # a loader's worker has one core, and threads do not survive the fork

_QUARTER_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
_FILL = 128  # the grey of what a moved picture leaves uncovered
_MAGNITUDE = 7 / 10
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


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


# ---- RandAugment ----


class RandAugment:
    """`count` operations drawn with replacement, each applied with probability 0.5 and a random sign."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, picture: ndarray) -> ndarray:
        """One random augmentation of an RGB picture, of the same size, random from torch's CPU generator."""
        for choice in torch.randint(len(_OPERATIONS), (self.count,)).tolist():
            apply_draw, sign_draw = torch.rand(2).tolist()
            if apply_draw < 0.5:
                operation = _OPERATIONS[choice]
                sign = -1 if operation.signed and sign_draw < 0.5 else 1
                picture = operation.apply(picture, sign * operation.strength)
        return picture


def identity(picture: ndarray, _: float) -> ndarray:
    """The picture as it is."""
    return picture


def auto_contrast(picture: ndarray, _: float) -> ndarray:
    """Each channel stretched to 0..255."""
    return cv2.merge([_stretched(channel) for channel in cv2.split(picture)])


def equalize(picture: ndarray, _: float) -> ndarray:
    """Each channel's histogram made flat."""
    return cv2.merge([_flattened(channel) for channel in cv2.split(picture)])


def brightness(picture: ndarray, factor: float) -> ndarray:
    """Values times `factor`."""
    return cv2.LUT(picture, _table(np.arange(256, dtype=np.float32) * np.float32(factor)))


def sharpness(picture: ndarray, factor: float) -> ndarray:
    """Smoothed picture at factor 0, the picture at 1, sharpened above; the border stays.

    As released, a value pushed out of 0..255 wraps around.
    """
    smooth = cv2.filter2D(picture, -1, _SMOOTH).astype(np.float32)
    sharp = picture.astype(np.float32)
    sharp -= smooth
    sharp *= np.float32(factor)
    sharp += smooth
    wrapped = sharp.astype(np.int32).astype(np.uint8)
    wrapped[[0, -1]], wrapped[:, [0, -1]] = picture[[0, -1]], picture[:, [0, -1]]
    return wrapped


def shear_x(picture: ndarray, factor: float) -> ndarray:
    """Row y moved right by `factor * y` pixels (the top row stays)."""
    return _affine(picture, np.array([[1, factor, 0], [0, 1, 0]]))


def shear_y(picture: ndarray, factor: float) -> ndarray:
    """Column x moved down by `factor * x` pixels (the left column stays)."""
    return _affine(picture, np.array([[1, 0, 0], [factor, 1, 0]]))


def translate_x(picture: ndarray, pixels: float) -> ndarray:
    """Moved left by whole `pixels`."""
    return _moved(picture, -round(pixels), 0)


def translate_y(picture: ndarray, pixels: float) -> ndarray:
    """Moved up by whole `pixels`."""
    return _moved(picture, 0, -round(pixels))


def rotate(picture: ndarray, degrees: float) -> ndarray:
    """Turned counter-clockwise by `degrees` about the pixel at half the width and height, as released."""
    height, width = picture.shape[:2]
    return _affine(picture, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1))


def _affine(picture: ndarray, matrix: ndarray) -> ndarray:
    """The pixel at (x, y) moved to `matrix @ (x, y, 1)`, between pixels linearly."""
    height, width = picture.shape[:2]
    moved = cv2.warpAffine(
        cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA),  # the same pixels by OpenCV's fast way, which three channels lack
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(_FILL,) * 4,
    )
    return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)


def _moved(picture: ndarray, right: int, down: int) -> ndarray:
    height, width = picture.shape[:2]
    moved = np.full_like(picture, _FILL)
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = picture[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


def _stretched(channel: ndarray) -> ndarray:
    """One channel `[H, W]` with its lowest value moved to 0 and its highest to 255."""
    low, high, _, _ = cv2.minMaxLoc(channel)
    if low == high:
        return channel
    scale = 255 / (high - low)
    return cv2.LUT(channel, _table(np.arange(256) * scale - low * scale))


def _flattened(channel: ndarray) -> ndarray:
    """One channel `[H, W]` with every value there is about as frequent as any other."""
    counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    step = counts[counts > 0][:-1].sum() // 255
    if step == 0:
        return channel
    below = np.cumsum(counts) - counts
    return cv2.LUT(channel, _table((step // 2 + below) // step))


def _table(values: ndarray) -> ndarray:
    """256 values as a table to look up: whole numbers in 0..255, cut off."""
    return values.clip(0, 255).astype(np.uint8)


class Operation(NamedTuple):
    """An augmentation, its strength at the released magnitude, and whether its sign is random."""

    apply: Callable[[ndarray, float], ndarray]
    strength: float = 0.0
    signed: bool = False


OPERATIONS = {
    "Identity": Operation(identity),
    "AutoContrast": Operation(auto_contrast),
    "Equalize": Operation(equalize),
    "Brightness": Operation(brightness, 0.1 + 1.8 * _MAGNITUDE),
    "Sharpness": Operation(sharpness, 0.1 + 1.8 * _MAGNITUDE),
    "ShearX": Operation(shear_x, 0.3 * _MAGNITUDE, signed=True),
    "ShearY": Operation(shear_y, 0.3 * _MAGNITUDE, signed=True),
    "TranslateX": Operation(translate_x, 10 * _MAGNITUDE, signed=True),
    "TranslateY": Operation(translate_y, 10 * _MAGNITUDE, signed=True),
    "Rotate": Operation(rotate, 30 * _MAGNITUDE, signed=True),
}
_OPERATIONS = tuple(OPERATIONS.values())
