"""Scenes of land and water, from above.

Each draws in a frame of about 100 by 100 around its own centre, with the neighbour's band above it, and gives the
slots on which the scene's objects can stand.
"""

import math

from dataset.drawn.brush import Brush, shade
from dataset.drawn.colours import ASPHALT, CONCRETE, CROP, LEAF, LINE, PAINT, SAND, SEA, SOIL, WATER, jittered
from dataset.drawn.grammar import Scene
from dataset.drawn.layout import Slots, below, grid, ring
from dataset.drawn.neighbours import river
from dataset.drawn.objects import flat, house, tree


def waterway(b: Brush, scene: Scene) -> Slots:
    """A wide meandering river."""
    middle = river(b.at(0, 4), WATER[scene.tint], 36, 7)
    slots: Slots = []
    for x in (-40, -20, 0, 20, 40):
        _, y = min((abs(along - x), y) for along, y in middle)
        slots.append((x, y + 4 + b.rng.uniform(-8, 8), b.rng.choice((0, 180))))
    return slots


def bridge(b: Brush, scene: Scene) -> Slots:
    """A road over a river that flows along the neighbour."""
    river(b.at(0, 4), WATER["blue"], 48, 2)
    across = b.at(0, 4, 90)
    across.box(0, 0, 200, 11, ASPHALT)
    across.box(0, 0, 60, 16, PAINT[scene.tint], 7)
    across.box(0, 0, 60, 13, shade(PAINT[scene.tint], 0.86))
    for x in range(-30, 31, 6):
        for y in (-7.2, 7.2):
            across.box(x, y, 1.6, 1.6, shade(PAINT[scene.tint], 0.6))
    across.dashes(-60, 60, 0, 0.7, LINE)
    return [(-3.2, y, 90) if i % 2 else (3.2, y, -90) for i, y in enumerate((-18, -3, 12, 27))]


def farmland(b: Brush, scene: Scene) -> Slots:
    """A patchwork of fields, most in the crop's colour."""
    for column in range(-3, 4):
        for row in range(3):
            tone = CROP[scene.tint] if b.rng.random() < 0.85 else b.rng.choice(list(CROP.values()))
            tone = jittered(b, tone, 0.14)
            plot = b.at(column * 30, -26 + row * 30, b.rng.choice((0, 90)))
            plot.surface([(-14.4, -14.4), (14.4, -14.4), (14.4, 14.4), (-14.4, 14.4)], tone, 0.08, 12)
            for i in range(-13, 14, 2):
                plot.line([(i, -14), (i, 14)], 0.5, shade(tone, 0.9))
    return grid((-30, 0, 30), (-24, 4), 0) + grid((-15, 15), (32,), 90)


def woodland(b: Brush, scene: Scene) -> Slots:
    """Crowns without end, with clearings for the cabins."""
    leaf = LEAF[scene.tint]
    clearings = [(-30, -16), (2, -22), (32, -12), (-32, 20), (0, 12), (30, 24)]
    chosen = b.rng.sample(clearings, scene.count)
    for _ in range(620):
        x, y = b.rng.uniform(-72, 72), b.rng.uniform(-47, 66)
        if all(math.hypot(x - u, y - v) > 11.5 for u, v in chosen):
            tree(b.at(x, y), jittered(b, leaf, 0.2), b.rng.uniform(2.6, 4))
    return [(x, y, b.rng.uniform(0, 180)) for x, y in chosen]


def harbour(b: Brush, scene: Scene) -> Slots:
    """A quay, a pier with fingers, and the sea."""
    b.surface([(-150, -36), (150, -36), (150, 200), (-150, 200)], SEA, 0.1)
    b.box(0, -34, 300, 9, shade(CONCRETE, 1.05), 2)
    for y in (-8, 12, 32):
        b.box(0, y, 62, 3, PAINT[scene.tint], 1.5)
    b.box(0, 2, 6, 68, PAINT[scene.tint], 1.5)
    b.line([(0, -30), (0, 35)], 0.5, shade(PAINT[scene.tint], 0.75))
    return [(x, y + 6.5, 180 if x < 0 else 0) for x in (-17, 19) for y in (-8, 12, 32)]


def sparse(b: Brush, scene: Scene) -> Slots:
    """Open ground with paths to scattered places for houses."""
    slots = [(-30, -22), (4, -26), (34, -14), (-32, 18), (0, 10), (28, 26)]
    b.line([(-90, 34), (-12, 30), (14, 44), (90, 46)], 3, shade(SOIL, 1.15))
    for x, y in slots:
        tree(b.at(x + b.rng.uniform(11, 14), y + b.rng.uniform(-6, 6)), jittered(b, LEAF["green"], 0.2), 3.4)
    return [(x, y, b.rng.uniform(-30, 30)) for x, y in slots]


def beach(b: Brush, scene: Scene) -> Slots:
    """Sand between the land and the sea, with surf at the edge."""
    b.surface(below(b, -32), SAND[scene.tint], 0.05, 24)
    shore = b.wave(-120, 120, 4)
    for shift, tone in ((14, shade(SAND[scene.tint], 0.8)), (17, (112, 164, 176)), (24, SEA)):
        b.surface([(x, y + shift) for x, y in shore] + [(120, 200), (-120, 200)], tone, 0.08)
    for shift in (17, 21):
        b.line([(x, y + shift) for x, y in shore], 1, (234, 240, 240))
    return grid((-38, -13, 13, 38), (-22, -5))


def desert(b: Brush, scene: Scene) -> Slots:
    """Dunes with a bright and a dark side, and ripples over them."""
    b.hills(below(b, -38), SAND[scene.tint], 0.24, 3, 3)
    ripples = b.at(0, 0, b.rng.uniform(-25, 25))
    for y in range(-90, 120, 4):
        crest = [(x, v + y) for x, v in b.wave(-150, 150, 2)]
        ripples.glaze(crest + [(x, v + 1.2) for x, v in reversed(crest)], shade(SAND[scene.tint], 0.6), 50)
    return grid((-30, 0, 30), (-16, 18))


def pond(b: Brush, scene: Scene) -> Slots:
    """Still water with a pale bank."""
    outline = b.blob(27, 24, 0.14)
    b.surface([(1.12 * x, 1.12 * y) for x, y in outline], shade(SOIL, 1.05), 0.08)
    b.surface(outline, WATER[scene.tint], 0.08)
    return ring(9, 38, 35)


def mountain(b: Brush, scene: Scene) -> Slots:
    """Crests and valleys, with places for lakes."""
    stone = {"brown": (142, 112, 82), "grey": (136, 138, 140), "green": (92, 122, 66), "white": (206, 212, 220)}
    b.hills(below(b, -36), stone[scene.tint], 0.6, 4)
    return grid((-29, 0, 29), (-14, 18))


def island(b: Brush, scene: Scene) -> Slots:
    """Land with a beach and surf, in the sea."""
    outline = b.blob(29, 24, 0.22)
    land = {"green": (78, 112, 56), "yellow": (206, 180, 116), "grey": (134, 132, 128)}[scene.tint]
    for grow, tone in ((1.3, (62, 124, 150)), (1.14, (220, 228, 226)), (1.1, SAND["yellow"]), (0.94, land)):
        b.surface([(grow * x, grow * y) for x, y in outline], tone, 0.1, 12)
    if scene.tint == "green":
        for _ in range(90):
            angle, reach = b.rng.uniform(0, math.tau), math.sqrt(b.rng.random()) * 20
            tree(b.at(reach * 1.2 * math.cos(angle), reach * math.sin(angle)), jittered(b, LEAF["green"], 0.2), 2.6)
    elif scene.tint == "grey":
        b.hills([(0.9 * x, 0.9 * y) for x, y in outline], land, 0.5)
    return ring(8, 44, 38, 0.5)


def golf(b: Brush, scene: Scene) -> Slots:
    """Fairways in lighter green, a clubhouse, greens with holes."""
    for x, y, turn in ((-22, 8, 60), (18, 14, -50), (6, -24, 8)):
        fairway = b.at(x, y, turn)
        fairway.surface(fairway.blob(36, 13, 0.2), (122, 160, 84), 0.07)
        end = fairway.at(22, 0)
        end.surface(end.blob(7, 6, 0.1), (146, 190, 104), 0.03)
        end.disc(0, 0, 0.9, (250, 250, 250))
    house(b.at(-34, -33), PAINT[scene.tint], 22, 13)
    return [(-38, 0, 0), (-8, -8, 0), (14, -6, 0), (38, -10, 0), (-4, 20, 0), (30, 26, 0), (-26, 34, 0), (12, 35, 0)]


def wind_farm(b: Brush, scene: Scene) -> Slots:
    """Fields in strips with tracks between the places for turbines."""
    crop = CROP[scene.tint]
    for i in range(-5, 6):
        tone = jittered(b, crop, 0.1)
        b.surface([(i * 22, -46), (i * 22 + 21.4, -46), (i * 22 + 21.4, 90), (i * 22, 90)], tone, 0.07)
    b.line([(-90, 4), (90, 4)], 1.8, shade(SOIL, 1.2))
    return grid((-33, 0, 33), (-18, 24))


def solar_farm(b: Brush, scene: Scene) -> Slots:
    """A control house above two rows of places for arrays."""
    flat(b.at(-28, -34), PAINT[scene.tint], 22, 11)
    b.line([(-17, -34), (-17, -25), (90, -25)], 2.4, shade(SOIL, 1.1))
    return grid((-30, 0, 30), (-13, 9)) + grid((-16, 16), (32,))


def greenhouses(b: Brush, scene: Scene) -> Slots:
    """A shed above places for glass roofs in two columns."""
    house(b.at(-30, -35), PAINT[scene.tint], 24, 11)
    b.line([(0, -40), (0, 44)], 3, shade(SOIL, 1.15))
    return grid((-22, 22), (-19, -2, 15, 32))
