"""A brush that draws aerial pictures: flat shapes with a sun's shadows, mottled surfaces, a camera's grain.

A brush has a frame of its own (moved, turned and scaled against the picture's), so that a thing is drawn once
around its own centre and put anywhere. Lengths are hundredths of the picture's side, x to the right, y down.
"""

import cmath
import math
import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

SUPERSAMPLE = 3  # drawn larger by this and reduced, for smooth edges
GRAIN = 3.5  # standard deviation of the camera's noise, of 255
FADED = 0.12  # how far colours are drawn towards grey
HAZE = (12, 0.94)  # what the air adds to each channel, and the share of the ground's light that it lets through


def shade(colour: Colour, factor: float) -> Colour:
    """The colour lighter (factor above 1) or darker."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def rectangle(x: float, y: float, w: float, h: float) -> Points:
    """The corners of a rectangle `w` by `h` around (x, y)."""
    left, right, top, bottom = x - w / 2, x + w / 2, y - h / 2, y + h / 2
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


@cache
def _mottle(side: int, cells: int, octaves: int) -> Image.Image:
    """A cloudy grey picture `[side, side]`: noise of `cells` cells a side and of halved sizes above it."""
    rng = np.random.default_rng(cells)
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        count = min(side, cells << octave)
        grid = Image.fromarray(rng.random((count, count), np.float32))
        total += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC)) * 0.68**octave
    low, high = np.percentile(total, (2, 98))
    return Image.fromarray((np.clip((total - low) / (high - low), 0, 1) * 255).astype(np.uint8))


@cache
def _relief(side: int, cells: int, octaves: int) -> Image.Image:
    """Hills in slanting light, a grey picture `[side, side]`."""
    height = np.asarray(_mottle(side, cells, octaves).filter(ImageFilter.GaussianBlur(side / 220)), np.float32)
    crests = np.abs(height - 128)  # folded noise has sharp crests and valleys
    slope = np.gradient(crests, axis=0) + np.gradient(crests, axis=1)
    light = 0.5 - 0.16 * slope / slope.std() + 0.1 * (128 - crests - (128 - crests).mean()) / crests.std()
    return Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))


class Brush:
    """Draws on one picture in a frame of its own; `at` gives a brush with a frame inside this one."""

    def __init__(self, image: Image.Image, rng: random.Random, sun: complex, origin: complex, factor: complex) -> None:
        self.image, self.rng, self.sun = image, rng, sun
        self.origin, self.factor = origin, factor  # a point p of the frame is the pixel origin + factor * p
        self._draw = ImageDraw.Draw(image)
        self._glaze = ImageDraw.Draw(image, "RGBA")

    @classmethod
    def blank(cls, size: int, rng: random.Random) -> "Brush":
        """A brush on a new picture that `finished` reduces to `[size, size]`; the frame is centred."""
        side = size * SUPERSAMPLE
        sun = cmath.rect(1, rng.uniform(0, math.tau))  # the way shadows fall
        return cls(Image.new("RGB", (side, side)), rng, sun, complex(side, side) / 2, complex(side / 100))

    def at(self, x: float, y: float, degrees: float = 0.0, scale: float = 1.0) -> "Brush":
        """A brush whose frame has its origin at (x, y) of this one, turned clockwise and scaled."""
        factor = self.factor * cmath.rect(scale, math.radians(degrees))
        return Brush(self.image, self.rng, self.sun, self.origin + self.factor * complex(x, y), factor)

    @property
    def shadow(self) -> complex:
        """The way shadows fall in this frame, of length 1."""
        return self.sun * abs(self.factor) / self.factor

    def _pixels(self, points: Points, shift: complex = 0) -> Points:
        pixels = (self.origin + self.factor * complex(x, y) + shift for x, y in points)
        return [(pixel.real, pixel.imag) for pixel in pixels]

    def polygon(self, points: Points, colour: Colour, height: float = 0.0) -> None:
        """A filled outline; what has a height throws a shadow of that length."""
        for step in range(1, 4) if height else ():
            shift = self.sun * height * abs(self.factor) * step / 3
            self._glaze.polygon(self._pixels(points, shift), fill=(10, 15, 30, 60))
        self._draw.polygon(self._pixels(points), fill=colour)

    def box(self, x: float, y: float, w: float, h: float, colour: Colour, height: float = 0.0) -> None:
        """A rectangle `w` by `h` around (x, y)."""
        self.polygon(rectangle(x, y, w, h), colour, height)

    def disc(self, x: float, y: float, radius: float, colour: Colour, height: float = 0.0) -> None:
        """A circle around (x, y), with a shadow like `polygon`."""
        centre, radius = self.origin + self.factor * complex(x, y), radius * abs(self.factor)
        for step in range(1, 4) if height else ():
            spot = centre + self.sun * height * abs(self.factor) * step / 3
            self._glaze.circle((spot.real, spot.imag), radius, fill=(10, 15, 30, 60))
        self._draw.circle((centre.real, centre.imag), radius, fill=colour)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """An open line through the points."""
        pixels = max(1, round(width * abs(self.factor)))
        self._draw.line(self._pixels(points), fill=colour, width=pixels, joint="curve")

    def dashes(self, start: float, end: float, y: float, width: float, colour: Colour, step: float = 6.0) -> None:
        """A broken line along x."""
        for i in range(int((end - start) / step)):
            self.line([(start + i * step, y), (start + (i + 0.55) * step, y)], width, colour)

    def glaze(self, points: Points, colour: Colour, alpha: int) -> None:
        """A filled outline that lets what is under it through."""
        self._glaze.polygon(self._pixels(points), fill=(*colour, alpha))

    def surface(self, points: Points | None, colour: Colour, depth: float = 0.12, cells: int = 6) -> None:
        """A mottled area (None: the whole picture) whose colour varies by `depth` of itself either way."""
        warm = (1 + depth * 0.5, 1.0, 1 - depth * 0.5)  # light patches are dry and yellowish, dark ones cool
        light = tuple(round(c * w) for c, w in zip(shade(colour, 1 + depth), warm, strict=True))
        dark = tuple(round(c / w) for c, w in zip(shade(colour, 1 - depth), warm, strict=True))
        self._fill(points, dark, light, _mottle(self._sheet, cells, 6))

    def hills(self, points: Points | None, colour: Colour, steep: float, cells: int = 6, octaves: int = 6) -> None:
        """Like `surface`, as crests and valleys in slanting light; `steep` is how far light and shade part."""
        self._fill(points, shade(colour, 1 - steep), shade(colour, 1 + steep), _relief(self._sheet, cells, octaves))

    @property
    def _sheet(self) -> int:
        return self.image.width * 2  # surfaces are cut at random from a sheet of twice the picture's side

    def _fill(self, points: Points | None, dark: tuple[int, ...], light: tuple[int, ...], sheet: Image.Image) -> None:
        side = self.image.width
        left, top = self.rng.randrange(side), self.rng.randrange(side)
        blend = sheet.crop((left, top, left + side, top + side))
        texture = Image.composite(Image.new("RGB", blend.size, light), Image.new("RGB", blend.size, dark), blend)
        if points is None:
            self.image.paste(texture)
        else:
            mask = Image.new("L", blend.size)
            ImageDraw.Draw(mask).polygon(self._pixels(points), fill=255)
            self.image.paste(texture, mask=mask)

    def blob(self, rx: float, ry: float, rough: float = 0.12) -> Points:
        """An irregular closed outline around the frame's origin, `rx` by `ry` in its half axes."""
        waves = [(n, self.rng.uniform(0, math.tau), self.rng.uniform(0.3, 1) / n) for n in (2, 3, 4, 5)]
        outline = []
        for i in range(48):
            turn = math.tau * i / 48
            reach = 1 + rough * sum(size * math.sin(n * turn + phase) for n, phase, size in waves)
            outline.append((rx * reach * math.cos(turn), ry * reach * math.sin(turn)))
        return outline

    def wave(self, start: float, end: float, swing: float) -> Points:
        """An open line along x that meanders by `swing` either way."""
        first, second = self.rng.uniform(0, math.tau), self.rng.uniform(0, math.tau)
        xs = [start + (end - start) * i / 40 for i in range(41)]
        return [(x, swing * (0.7 * math.sin(x / 22 + first) + 0.3 * math.sin(x / 9 + second))) for x in xs]

    def finished(self) -> Image.Image:
        """The picture at its size: softened, unevenly lit, grainy, at times mirrored."""
        size = self.image.width // SUPERSAMPLE
        picture = self.image.reduce(SUPERSAMPLE).filter(ImageFilter.GaussianBlur(0.35))
        noise = np.random.default_rng(self.rng.getrandbits(64))
        across = np.linspace(-1, 1, size, dtype=np.float32)
        light = 1 + noise.normal(0, 0.03) + noise.normal(0, 0.03) * across + noise.normal(0, 0.03) * across[:, None]
        cast = noise.normal(0, 2.5, 3)
        grain = noise.normal(0, GRAIN, (size, size, 1)) + noise.normal(0, GRAIN / 3, (size, size, 3))
        pixels: np.ndarray = np.asarray(picture, np.float32)  # [size, size, 3]
        pixels += FADED * (pixels.mean(axis=2, keepdims=True) - pixels)
        pixels = HAZE[0] + HAZE[1] * pixels * light[..., None] + cast + grain
        if noise.random() < 0.5:  # no caption says left or right, which training's flips would exchange
            pixels = pixels[:, ::-1]
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
