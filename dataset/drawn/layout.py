"""Where objects can stand: slots (x, y, degrees) of a scene's frame, and the frame's own edges."""

import math

from dataset.drawn.brush import Brush, Points

Slots = list[tuple[float, float, float]]


def grid(xs: tuple[float, ...], ys: tuple[float, ...], degrees: float = 0.0) -> Slots:
    """Slots at every crossing."""
    return [(x, y, degrees) for x in xs for y in ys]


def ring(count: int, rx: float, ry: float, turn: float = 0.0) -> Slots:
    """Slots around an ellipse, each along it."""
    slots = []
    for i in range(count):
        angle = math.tau * (i + turn) / count
        slots.append((rx * math.cos(angle), ry * math.sin(angle), math.degrees(angle) + 90))
    return slots


def below(b: Brush, top: float) -> Points:
    """All of the picture under a wavy edge along x."""
    return [(x, y + top) for x, y in b.wave(-150, 150, 3)] + [(150, 200), (-150, 200)]
