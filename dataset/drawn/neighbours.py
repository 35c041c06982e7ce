"""What lies along an edge of a drawn scene: bands along x, around the brush's origin, half a width of about 11."""

from collections.abc import Callable

from dataset.drawn.brush import Brush, Colour, Points, rectangle, shade
from dataset.drawn.colours import ASPHALT, CONCRETE, CROP, LEAF, LINE, SAND, SOIL, WATER, jittered
from dataset.drawn.objects import house, tree


def road(b: Brush, width: float = 9) -> None:
    """Asphalt with kerbs and a broken middle line."""
    b.box(0, 0, 200, width + 3, shade(SOIL, 1.05))
    b.box(0, 0, 200, width, ASPHALT)
    for y in (-width / 2 + 0.7, width / 2 - 0.7):
        b.line([(-100, y), (100, y)], 0.5, LINE)
    b.dashes(-100, 100, 0, 0.6, (230, 210, 120))


def river(b: Brush, colour: Colour = WATER["blue"], width: float = 15, swing: float = 2.5) -> Points:
    """A meandering band of water; gives its middle line."""
    middle = b.wave(-100, 100, swing)
    for reach, tone in ((width / 2 + 2, shade(SOIL, 0.95)), (width / 2, colour)):
        banks = [(x, y - reach) for x, y in middle] + [(x, y + reach) for x, y in reversed(middle)]
        b.surface(banks, tone, 0.08)
    return middle


def railway(b: Brush, tracks: tuple[float, ...] = (-3.2, 3.2)) -> None:
    """Tracks on a bed of gravel."""
    bed = rectangle(0, (tracks[0] + tracks[-1]) / 2, 200, tracks[-1] - tracks[0] + 8)
    b.surface(bed, (118, 108, 98), 0.1, 40)
    for y in tracks:
        for x in range(-80, 81, 2):
            b.line([(x, y - 2), (x, y + 2)], 0.7, (78, 66, 56))
        for rail in (y - 1.1, y + 1.1):
            b.line([(-100, rail), (100, rail)], 0.5, (196, 196, 200))


def forest(b: Brush) -> None:
    """A band of dense crowns out to the picture's edge."""
    b.box(0, -14, 200, 46, shade(LEAF["green"], 0.62))
    for i in range(26):
        for y in (-10.5, -5, 0.5, 6, 9):
            at = b.at(-60 + i * 4.8 + b.rng.uniform(-2, 2), y + b.rng.uniform(-2, 2))
            tree(at, jittered(b, LEAF["green"], 0.18), b.rng.uniform(2.4, 3.6))


def field(b: Brush) -> None:
    """Ploughed soil and its furrows."""
    b.surface([(-100, -40), (100, -40), (100, 9), (-100, 9)], CROP["brown"], 0.1)
    for y in range(-22, 9, 2):
        b.line([(-100, y), (100, y)], 0.7, shade(CROP["brown"], 0.8 if y % 4 else 1.18))


def houses(b: Brush) -> None:
    """Houses in a row behind a lane."""
    b.box(0, 8, 200, 4, shade(CONCRETE, 0.86))
    start = -70 + b.rng.uniform(0, 10)
    for i in range(10):
        at = b.at(start + i * 15, -1 + b.rng.uniform(-1, 1), b.rng.uniform(-4, 4))
        house(at, jittered(b, b.rng.choice(((150, 84, 62), (128, 118, 110), (112, 80, 64))), 0.12), 10.5, 8)
        tree(b.at(start + i * 15 + 7.6, -3), jittered(b, LEAF["green"], 0.15), 2.4)


def coast(b: Brush) -> None:
    """Land at the sea: green behind a strip of sand."""
    for shift, tone in ((3, (120, 160, 170)), (0, SAND["yellow"]), (-6, (94, 122, 66))):
        shore = [(x, y + 6 + shift) for x, y in b.wave(-100, 100, 2)]
        b.surface([*shore, (100, -60), (-100, -60)], tone, 0.1)


def _shallow(b: Brush, tones: tuple[Colour, ...]) -> None:
    for shrink, tone in zip((1, 0.75, 0.5), tones, strict=True):
        at = b.at(0, 1)
        at.surface(at.blob(44 * shrink, 9 * shrink, 0.2), tone, 0.14, 12)


def reef(b: Brush) -> None:
    """Shallow turquoise water over coral."""
    _shallow(b, ((66, 140, 160), (96, 180, 182), (84, 152, 146)))


def bar(b: Brush) -> None:
    """A bank of bare sand in shallow water."""
    _shallow(b, ((96, 140, 160), SAND["yellow"], shade(SAND["yellow"], 1.08)))


NEIGHBOURS: dict[str, Callable[[Brush], object]] = {
    f.__name__: f for f in (road, river, railway, forest, field, houses, coast, reef, bar)
}
