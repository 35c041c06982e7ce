"""Pictures: loading, the train and the evaluation transform."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from utils.errors import InputError

Transform = Callable[[Image.Image], Tensor]

_FILL = (128, 128, 128)  # what a moved picture leaves uncovered
_MAGNITUDE = 7 / 10
_DEEP_MODES = ("I", "F")  # more than 8 bits a channel: Pillow clips these to white instead of scaling


def load_picture(path: str | Path) -> Image.Image:
    """The RGB picture at `path`; `InputError` naming the file where it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(_DEEP_MODES):
                raise InputError(f"{path} has more than 8 bits a channel: convert it to 8 bits")
            return image.convert("RGB")
    except InputError:
        raise
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"cannot read the picture {path}: {reason}") from None


def train_transform(size: int, *, randaugment_ops: int = 2, quarter_turns: bool = False) -> Transform:
    """Released training transform, picture -> uint8 `[3, size, size]`, random from torch's CPU generator.

    `randaugment_ops` operations are drawn a picture (0: none). `quarter_turns` adds a turn by 0, 90, 180 or
    270 degrees: an aerial picture has no up.
    """
    steps: list[Callable] = [
        v2.RandomResizedCrop(size, scale=(0.5, 1.0), interpolation=InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
    ]
    if quarter_turns:
        steps.append(quarter_turn)
    if randaugment_ops:
        steps.append(RandAugment(randaugment_ops))
    return v2.Compose([*steps, v2.PILToTensor()])


def evaluation_transform(size: int) -> Transform:
    """Released evaluation transform, picture -> uint8 `[3, size, size]`: bicubic resize, no crop."""
    return v2.Compose([v2.Resize((size, size), interpolation=InterpolationMode.BICUBIC), v2.PILToTensor()])


def quarter_turn(image: Image.Image) -> Image.Image:
    """The picture turned by a random multiple of 90 degrees."""
    turns = int(torch.randint(4, ()))
    return image.rotate(90 * turns, expand=True)  # Pillow turns by multiples of 90 without resampling


class RandAugment:
    """`count` operations drawn with replacement, each applied with probability 0.5 and a random sign."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, image: Image.Image) -> Image.Image:
        """One random augmentation of an RGB picture, of the same size."""
        for choice in torch.randint(len(_OPERATIONS), (self.count,)).tolist():
            apply_draw, sign_draw = torch.rand(2).tolist()
            if apply_draw < 0.5:
                operation = _OPERATIONS[choice]
                sign = -1 if operation.signed and sign_draw < 0.5 else 1
                image = operation.apply(image, sign * operation.strength)
        return image


def identity(image: Image.Image, _: float) -> Image.Image:
    """The picture as it is."""
    return image


def auto_contrast(image: Image.Image, _: float) -> Image.Image:
    """Each channel stretched to 0..255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, _: float) -> Image.Image:
    """Each channel's histogram made flat."""
    return ImageOps.equalize(image)


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Values times `factor`."""
    return ImageEnhance.Brightness(image).enhance(factor)


def sharpness(image: Image.Image, factor: float) -> Image.Image:
    """Smoothed picture at factor 0, the picture at 1, sharpened above.

    As released, a value pushed out of 0..255 wraps around (Pillow's own enhancer would clip it).
    """
    smooth = np.asarray(image.filter(ImageFilter.SMOOTH), dtype=np.float32)  # keeps the border as it is
    sharp = smooth + factor * (np.asarray(image, dtype=np.float32) - smooth)  # [H, W, 3]
    return Image.fromarray(sharp.astype(np.int32).astype(np.uint8))


def shear_x(image: Image.Image, factor: float) -> Image.Image:
    """Row y moved right by `factor * y` pixels (the top row stays)."""
    return _affine(image, (1, -factor, factor / 2, 0, 1, 0))


def shear_y(image: Image.Image, factor: float) -> Image.Image:
    """Column x moved down by `factor * x` pixels (the left column stays)."""
    return _affine(image, (1, 0, 0, -factor, 1, factor / 2))


def translate_x(image: Image.Image, pixels: float) -> Image.Image:
    """Moved left by whole `pixels`."""
    return _moved(image, -round(pixels), 0)


def translate_y(image: Image.Image, pixels: float) -> Image.Image:
    """Moved up by whole `pixels`."""
    return _moved(image, 0, -round(pixels))


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Turned counter-clockwise by `degrees` about the pixel at half the width and height, as released."""
    centre = (image.width / 2 + 0.5, image.height / 2 + 0.5)  # Pillow counts from a pixel's corner
    return image.rotate(degrees, resample=Image.Resampling.BILINEAR, center=centre, fillcolor=_FILL)


def _affine(image: Image.Image, output_to_input: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        output_to_input,
        resample=Image.Resampling.BILINEAR,
        fillcolor=_FILL,
    )


def _moved(image: Image.Image, right: int, down: int) -> Image.Image:
    moved = Image.new("RGB", image.size, _FILL)
    moved.paste(image, (right, down))
    return moved


class Operation(NamedTuple):
    """An augmentation, its strength at the released magnitude, and whether its sign is random."""

    apply: Callable[[Image.Image, float], Image.Image]
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
