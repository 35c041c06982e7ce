"""RandAugment's ten released operations on uint8 pictures `[H, W, 3]`.

By OpenCV, as released: the recorded pictures come out pixel for pixel, several times as fast as by Pillow.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy import ndarray

cv2.setNumThreads(0)  # a loader's worker has one core, and threads do not survive the fork

_FILL = 128  # the grey of what a moved picture leaves uncovered
_MAGNITUDE = 7 / 10
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


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
