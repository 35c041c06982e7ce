"""The objects that captions count, and the buildings near them.

Every object is drawn around the origin of the brush it gets, in a size that fits the scene's slots.
"""

import math
from collections.abc import Callable

from dataset.drawn.brush import Brush, Colour, Points, rectangle, shade
from dataset.drawn.colours import CONCRETE, LEAF, LINE, PAINT, SAND, WATER, jittered

GLASS = (40, 46, 56)


def plane(b: Brush, colour: Colour) -> None:
    """An airliner, nose up."""
    dark = shade(colour, 0.82)
    b.polygon([(0, -3), (10, 4), (10, 6), (0, 3), (-10, 6), (-10, 4)], dark, 1.6)
    b.polygon([(0, 7), (4, 10), (4, 11), (0, 10), (-4, 11), (-4, 10)], dark, 1)
    b.polygon([(0, -11), (1.3, -8.5), (1.3, 6), (0.5, 11), (-0.5, 11), (-1.3, 6), (-1.3, -8.5)], colour, 1.6)
    for x in (-4.5, 4.5):
        b.box(x, 0.6, 1.2, 2.6, shade(colour, 0.6))


def boat(b: Brush, colour: Colour) -> None:
    """A boat with a cabin and a wake, bow to the right."""
    b.glaze([(-8, 0), (-13, -3), (-13, 3)], (235, 240, 245), 50)
    b.polygon([(-8.4, -3.2), (3, -3.5), (9.6, 0), (3, 3.5), (-8.4, 3.2)], colour, 1.4)
    b.box(-2.4, 0, 6.4, 3.6, shade(colour, 0.7), 0.6)
    b.line([(3.1, -1.4), (6.4, 0), (3.1, 1.4)], 0.4, shade(colour, 0.75))


def car(b: Brush, colour: Colour) -> None:
    """A car, driving right."""
    b.box(0, 0, 9.8, 5, colour, 1.2)
    b.box(1.5, 0, 1.6, 4.1, GLASS)
    b.box(-3, 0, 1.1, 3.9, GLASS)


def bus(b: Brush, colour: Colour) -> None:
    """A bus, driving right."""
    b.box(0, 0, 17, 5.8, colour, 2)
    b.box(0, 0, 14.8, 1.8, shade(colour, 0.86))
    b.box(7.9, 0, 1, 5, GLASS)


def truck(b: Brush, colour: Colour) -> None:
    """A truck with its cab to the right."""
    b.box(-1.7, 0, 12.6, 5.6, colour, 2)
    b.box(6.9, 0, 3.4, 5, shade(colour, 0.8), 1.4)
    b.box(7.4, 0, 1, 4.2, GLASS)


def train(b: Brush, colour: Colour) -> None:
    """Five wagons along x."""
    for x in (-26, -13, 0, 13, 26):
        b.box(x, 0, 12.2, 4.8, colour, 1.4)
        b.box(x, 0, 10.6, 1.3, shade(colour, 0.8))


def house(b: Brush, colour: Colour, w: float = 13, h: float = 10) -> None:
    """A house under a hipped roof, ridge along x."""
    left, right, top, bottom = -w / 2, w / 2, -h / 2, h / 2
    ridge = (left + h * 0.3, 0.0), (right - h * 0.3, 0.0)
    b.box(0, 0, w, h, colour, 2.6)
    b.polygon([(left, top), (right, top), ridge[1], ridge[0]], shade(colour, 1.1))
    b.polygon([(left, bottom), (right, bottom), ridge[1], ridge[0]], shade(colour, 0.78))
    b.polygon([(right, top), (right, bottom), ridge[1]], shade(colour, 0.92))
    b.line(list(ridge), 0.4, shade(colour, 1.25))


def cabin(b: Brush, colour: Colour) -> None:
    """A small house."""
    house(b, colour, 11, 8.5)


def barn(b: Brush, colour: Colour) -> None:
    """A long house."""
    house(b, colour, 17, 9)


def flat(b: Brush, colour: Colour, w: float, h: float, height: float = 3) -> None:
    """A building under a flat roof with a parapet and machines on it."""
    b.box(0, 0, w, h, shade(colour, 1.12), height)
    b.box(0, 0, w - 1.6, h - 1.6, colour)
    for _ in range(max(2, int(w * h / 90))):
        x, y = b.rng.uniform(-0.38, 0.38) * w, b.rng.uniform(-0.3, 0.3) * h
        b.box(x, y, b.rng.uniform(1.5, 3), b.rng.uniform(1.5, 2.5), shade(colour, b.rng.choice((0.78, 1.2))), 0.6)


def grandstand(b: Brush, colour: Colour) -> None:
    """Rows of seats under no roof."""
    b.box(0, 0, 24, 8, colour, 2)
    for y in (-2, 0, 2):
        b.line([(-11.5, y), (11.5, y)], 0.5, shade(colour, 0.75))


def tennis_court(b: Brush, colour: Colour) -> None:
    """A court with its lines and net."""
    b.box(0, 0, 25, 15, shade(colour, 0.8), 0.4)
    _lined(b, colour, 20, 10.5)
    b.line([(-10, -3.8), (10, -3.8)], 0.5, LINE)
    b.line([(-10, 3.8), (10, 3.8)], 0.5, LINE)
    b.line([(-5, 0), (5, 0)], 0.5, LINE)
    for x in (-5, 5):
        b.line([(x, -3.8), (x, 3.8)], 0.5, LINE)


def basketball_court(b: Brush, colour: Colour) -> None:
    """A court with a middle circle and two keys."""
    b.box(0, 0, 25, 15, shade(colour, 0.85))
    _lined(b, colour, 22.5, 12.5)
    b.disc(0, 0, 2.4, LINE)
    b.disc(0, 0, 1.8, colour)
    for x in (-9, 9):
        b.box(x, 0, 4, 5, LINE)
        b.box(x, 0, 3, 4, shade(colour, 0.7))


def _lined(b: Brush, colour: Colour, w: float, h: float) -> None:
    b.box(0, 0, w + 1, h + 1, LINE)
    b.box(0, 0, w, h, colour)
    b.line([(0, -h / 2), (0, h / 2)], 0.5, LINE)


def baseball_field(b: Brush, colour: Colour) -> None:
    """A quarter circle of lawn, home plate at its bottom corner, the infield in the colour."""

    def fan(reach: float) -> Points:
        arc = [math.radians(degrees) for degrees in range(-135, -44, 9)]
        return [(0.0, 11.0), *((reach * math.cos(a), 11 + reach * math.sin(a)) for a in arc)]

    b.polygon(fan(30), shade(colour, 0.95))
    b.surface(fan(28.5), (84, 134, 62), 0.1, 12)
    b.polygon(fan(20.5), colour)
    b.polygon([(0, 8), (5, 3), (0, -2), (-5, 3)], (96, 146, 70))
    b.disc(0, 3, 1.3, colour)
    b.disc(0, 10.4, 2.4, colour)
    for x in (-20, 20):
        b.line([(0, 11), (x, -9)], 0.4, LINE)


def storage_tank(b: Brush, colour: Colour) -> None:
    """A cylinder with a domed lid."""
    b.disc(0, 0, 9.6, shade(CONCRETE, 0.86))
    b.disc(0, 0, 8.4, shade(colour, 0.72), 5)
    b.disc(0, 0, 7.8, colour)
    lit = -b.shadow
    b.disc(2.2 * lit.real, 2.2 * lit.imag, 4.6, shade(colour, 1.07))
    b.line([(-7.6, 0), (7.6, 0)], 0.4, shade(colour, 0.7))
    b.disc(0, 0, 1, shade(colour, 0.65))


def swimming_pool(b: Brush, colour: Colour) -> None:
    """A garden's pool with its pale edge."""
    b.box(0, 0, 12.4, 8.4, (226, 220, 206))
    b.surface(rectangle(0, 0, 10, 6), shade(colour, 1.25), 0.08, 24)


def umbrella(b: Brush, colour: Colour) -> None:
    """A sunshade of eight panels, every other one paler, and a towel."""
    b.box(5.5, 4.5, 2.4, 5, (226, 222, 214))
    b.disc(0, 0, 5.6, colour, 2.4)
    for i in range(0, 8, 2):
        first, last = math.tau * i / 8, math.tau * (i + 1) / 8
        rim = [(5.6 * math.cos(a), 5.6 * math.sin(a)) for a in (first, (first + last) / 2, last)]
        b.polygon([(0, 0), *rim], shade(colour, 1.22))


def tent(b: Brush, colour: Colour) -> None:
    """A four-sided tent with its peak in the middle."""
    corners = [(-5.5, -5.5), (5.5, -5.5), (5.5, 5.5), (-5.5, 5.5)]
    b.polygon(corners, colour, 3)
    for i, factor in enumerate((1.12, 0.92, 0.68, 0.86)):
        b.polygon([corners[i], corners[(i + 1) % 4], (0, 0)], shade(colour, factor))


def tree(b: Brush, colour: Colour, radius: float = 6.5) -> None:
    """A crown seen from above, lit from the sun's side."""
    b.disc(0, 0, radius, shade(colour, 0.72), radius * 0.55)
    lit = -b.shadow * radius
    for _ in range(7 if radius > 4 else 2):
        x, y = b.rng.gauss(0.12 * lit.real, radius * 0.34), b.rng.gauss(0.12 * lit.imag, radius * 0.34)
        b.disc(x, y, radius * b.rng.uniform(0.28, 0.45), jittered(b, colour, 0.16))
    b.disc(0.32 * lit.real, 0.32 * lit.imag, radius * 0.42, shade(colour, 1.2))


def chimney(b: Brush, colour: Colour) -> None:
    """A stack with a long shadow and a plume along it."""
    b.disc(0, 0, 4.6, colour, 16)
    wind = b.shadow * 1j
    for i in range(1, 7):
        puff = wind * i * 3.2
        at = b.at(puff.real, puff.imag)
        at.glaze(at.blob(2 + i * 0.55, 2 + i * 0.55), (236, 236, 238), 120 - i * 14)
    b.disc(0, 0, 4.6, colour)
    b.disc(0, 0, 3.2, shade(colour, 0.62))
    b.disc(0, 0, 2.1, (30, 30, 32))


def lake(b: Brush, colour: Colour) -> None:
    """A small mountain lake."""
    outline = b.blob(11, 8, 0.2)
    b.polygon([(1.12 * x, 1.12 * y) for x, y in outline], shade(colour, 1.35))
    b.surface(outline, colour, 0.07)


def bunker(b: Brush, colour: Colour) -> None:
    """A kidney of sand in the grass."""
    outline = b.blob(7.5, 5, 0.3)
    b.polygon([(1.16 * x, 1.2 * y) for x, y in outline], (66, 100, 48))
    b.surface(outline, colour, 0.05)


def wind_turbine(b: Brush, colour: Colour) -> None:
    """A pad, a mast and three blades, with the shadow of all on the ground."""
    b.box(0, 0, 5, 5, shade(CONCRETE, 0.95))
    start = b.rng.uniform(0, 120)
    for blade in range(3):
        b.at(0, 0, start + blade * 120).polygon([(-0.9, 0), (-1.2, 3), (0, 13.5), (0.9, 3), (0.9, 0)], colour, 7)
    b.disc(0, 0, 1.9, shade(colour, 0.85), 7)
    b.disc(0, 0, 1.9, shade(colour, 0.9))


def solar_array(b: Brush, colour: Colour) -> None:
    """Rows of panels with their seams."""
    for y in (-6, 0, 6):
        b.box(0, y, 26, 4.9, colour, 1)
        b.line([(-13, y), (13, y)], 0.4, shade(colour, 1.9))
        for x in range(-13, 14, 4):
            b.line([(x, y - 2.4), (x, y + 2.4)], 0.35, shade(colour, 1.9))


def tower(b: Brush, colour: Colour) -> None:
    """A high-rise with a long shadow."""
    b.box(0, 0, 16, 16, shade(colour, 1.1), 15)
    b.box(0, 0, 13.6, 13.6, shade(colour, 0.9))
    b.box(0, 0, 12.4, 12.4, colour)
    b.box(b.rng.uniform(-2, 2), b.rng.uniform(-2, 2), 5, 4, shade(colour, 0.72), 1.5)


def greenhouse(b: Brush, colour: Colour) -> None:
    """A long glass roof in ribs."""
    b.box(0, 0, 38, 12, shade(colour, 1.05), 2)
    for y, factor in ((-4, 1.1), (-2, 0.9), (2, 1.1), (4, 0.9)):
        b.box(0, y, 37, 2 if y % 4 == 0 else 1.9, shade(colour, factor))
    for x in range(-16, 17, 4):
        b.line([(x, -6), (x, 6)], 0.4, shade(colour, 0.72))


OBJECTS: dict[str, Callable[[Brush, Colour], None]] = {
    "plane": plane,
    "boat": boat,
    "car": car,
    "bus": bus,
    "truck": truck,
    "train": train,
    "house": house,
    "cabin": cabin,
    "barn": barn,
    "grandstand": grandstand,
    "tennis court": tennis_court,
    "basketball court": basketball_court,
    "baseball field": baseball_field,
    "storage tank": storage_tank,
    "swimming pool": swimming_pool,
    "umbrella": umbrella,
    "tent": tent,
    "tree": tree,
    "chimney": chimney,
    "lake": lake,
    "bunker": bunker,
    "wind turbine": wind_turbine,
    "solar array": solar_array,
    "tower": tower,
    "greenhouse": greenhouse,
}
# What is not painted has its own shades of the colour words.
NATURAL: dict[str, dict[str, Colour]] = {
    "tree": LEAF,
    "lake": WATER,
    "bunker": SAND,
    "baseball field": {"brown": (132, 92, 62), "red": (178, 78, 58), "yellow": (212, 180, 112)},
    "solar array": {"blue": (38, 66, 126), "black": (36, 38, 44)},
}


def draw_object(brush: Brush, noun: str, colour: str) -> None:
    """One object of the grammar in the colour of that name."""
    OBJECTS[noun](brush, jittered(brush, NATURAL.get(noun, PAINT)[colour], 0.05))
