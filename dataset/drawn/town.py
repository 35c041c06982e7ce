"""Scenes of towns and traffic, from above.

Each draws in a frame of about 100 by 100 around its own centre, with the neighbour's band above it, and gives the
slots on which the scene's objects can stand.
"""

import math

from dataset.drawn.brush import Brush, Points, shade
from dataset.drawn.colours import ASPHALT, CONCRETE, LEAF, LINE, PAINT, SOIL, jittered
from dataset.drawn.grammar import Scene
from dataset.drawn.layout import Slots, grid, ring
from dataset.drawn.neighbours import railway, road
from dataset.drawn.objects import draw_object, flat, house, tree


def airport(b: Brush, scene: Scene) -> Slots:
    """A terminal with an apron before it and a runway behind the planes."""
    b.box(0, 40, 300, 13, shade(ASPHALT, 0.9))
    b.dashes(-100, 100, 40, 0.9, LINE)
    b.surface([(-48, -30), (48, -30), (48, 20), (-48, 20)], CONCRETE, 0.06, 24)
    for x in (-40, 40):
        b.box(x, 28, 7, 18, shade(ASPHALT, 1.1))
    b.line([(-46, 15), (46, 15)], 0.5, (214, 184, 80))
    flat(b.at(0, -27), PAINT[scene.tint], 74, 14, 4)
    for x in (-36, -18, 0, 18, 36):
        b.box(x, -17, 1.6, 7, shade(PAINT[scene.tint], 0.8), 1)
    return grid((-37, -18.5, 0, 18.5, 37), (0.5,))


def stadium(b: Brush, scene: Scene) -> Slots:
    """An oval of seats around a pitch."""

    def oval(rx: float, ry: float) -> Points:
        return [(rx * math.cos(math.tau * i / 60), ry * math.sin(math.tau * i / 60)) for i in range(60)]

    b.surface(oval(48, 41), CONCRETE, 0.06, 24)
    b.polygon(oval(35, 28.5), (206, 206, 204), 4)
    for i in range(5):
        seats = shade(PAINT[scene.tint], (1.0, 0.86)[i % 2])
        b.polygon(oval(33.4 - 2.4 * i, 27 - 2.3 * i), seats)
    for i in range(0, 60, 5):
        (x, y), (u, v) = oval(33.4, 27)[i], oval(22, 16.5)[i]
        b.line([(x, y), (u, v)], 0.5, shade(PAINT[scene.tint], 0.6))
    b.polygon(oval(22, 16.5), (84, 128, 66))
    pitch(b, 32, 20)
    return ring(8, 41, 34.5, 0.5)


def pitch(b: Brush, w: float, h: float) -> None:
    """A mown lawn in stripes with a football field's lines."""
    b.box(0, 0, w, h, LINE)
    for i in range(8):
        mown = shade((78, 136, 62), 1.1 if i % 2 else 1)
        b.box((i - 3.5) * (w - 1) / 8, 0, (w - 1) / 8 + 0.2, h - 1, mown)
    b.line([(0, -h / 2), (0, h / 2)], 0.5, LINE)
    b.disc(0, 0, h * 0.17, LINE)
    b.disc(0, 0, h * 0.17 - 0.6, (84, 142, 62))
    for x in (-w / 2, w / 2):
        inward = -math.copysign(h * 0.14, x)
        b.line([(x, -h * 0.25), (x + inward, -h * 0.25), (x + inward, h * 0.25), (x, h * 0.25)], 0.5, LINE)


def parking(b: Brush, scene: Scene) -> Slots:
    """Stalls in rows, full or nearly empty, and a row for buses."""
    b.surface([(-47, -40), (47, -40), (47, 42), (-47, 42)], ASPHALT, 0.06, 24)
    full = scene.tint == "many"
    taken = b.rng.sample(range(36), 34 if full else 5)
    for i in range(36):
        row, column = divmod(i, 9)
        x, y = -40 + column * 10, (-33, -18.5, -6, 8.5)[row]
        for side in (-5, 5):
            b.line([(x + side, y - 5), (x + side, y + 5)], 0.5, LINE)
        if i in taken:
            colour = b.rng.choice(("white", "grey", "black", "grey", "red", "blue"))
            draw_object(b.at(x, y, b.rng.choice((90, -90))), "car", colour)
    return grid((-36, -18, 0, 18, 36), (29,), 90)


def track(b: Brush, scene: Scene) -> Slots:
    """A running track around a pitch."""

    def oval(radius: float) -> Points:
        arc = [math.pi * i / 16 - math.pi / 2 for i in range(17)]
        right = [(20 + radius * math.cos(a), radius * math.sin(a)) for a in arc]
        return right + [(-x, -y) for x, y in right]

    b.polygon(oval(27), LINE)
    for i in range(5):
        b.polygon(oval(26.4 - i * 2.1), LINE)
        b.polygon(oval(26 - i * 2.1), PAINT[scene.tint])
    b.polygon(oval(15.6), (92, 132, 66))
    pitch(b, 44, 26)
    return [(-15, -33, 0), (15, -33, 0), (-15, 33, 0), (15, 33, 0)]


def tennis(b: Brush, scene: Scene) -> Slots:
    """A clubhouse above two rows of places for courts."""
    flat(b.at(0, -33), PAINT[scene.tint], 40, 13)
    b.box(0, -24, 70, 2.4, shade(SOIL, 1.2))
    return grid((-29, 0, 29), (-10, 13))


def baseball(b: Brush, scene: Scene) -> Slots:
    """A clubhouse in the middle of four places for fields."""
    flat(b.at(0, 0), PAINT[scene.tint], 17, 13)
    return [(-26, -21, -45), (26, -21, 45), (-26, 21, -135), (26, 21, 135)]


def tanks(b: Brush, scene: Scene) -> Slots:
    """Places for tanks in rows, joined by pipes, and a pump house."""
    b.surface([(-44, -42), (44, -42), (44, 44), (-44, 44)], SOIL, 0.08, 24)
    for x in (-15, 12):
        b.line([(x, -36), (x, 40)], 1, (190, 188, 180))
    b.line([(-40, -16), (40, -16)], 1, (190, 188, 180))
    flat(b.at(-29, -30), PAINT[scene.tint], 20, 15)
    return grid((-29, -2, 26), (-4, 26)) + grid((-2, 26), (-31,))


def dense(b: Brush, scene: Scene) -> Slots:
    """Streets of small houses wall to wall; a pool takes a house's place."""
    b.box(0, 10, 300, 112, shade(CONCRETE, 0.8))
    plots = [(x, y) for y in (-36, -24, -8, 4, 20, 32, 48) for x in range(-76, 77, 14)]
    chosen = b.rng.sample([(x, y) for x, y in plots if abs(x) < 44 and y < 33], scene.count)
    for y in (-30, -2, 26):
        b.box(0, y, 300, 23, (112, 122, 82))
    for x, y in plots:
        if (x, y) not in chosen:
            house(b.at(x, y, b.rng.uniform(-3, 3)), jittered(b, PAINT[scene.tint], 0.16), 11.5, 9)
            tree(b.at(x + 7, y + 3), jittered(b, LEAF["green"], 0.2), b.rng.uniform(1.2, 2.2))
    return [(x, y, 0) for x, y in chosen]


def station(b: Brush, scene: Scene) -> Slots:
    """A long roof, then platforms and four tracks."""
    for y in (-12, 4, 20, 36):
        railway(b.at(0, y), (0.0,))
        b.box(0, y + 8, 120, 5, shade(CONCRETE, 1.08), 0.8)
        b.line([(-60, y + 6), (60, y + 6)], 0.5, (224, 190, 70))
    b.box(0, -22, 130, 5, shade(CONCRETE, 1.08))
    house(b.at(0, -33), PAINT[scene.tint], 84, 16)
    return [(b.rng.uniform(-12, 12), y, 0) for y in (-12, 4, 20, 36)]


def overpass(b: Brush, scene: Scene) -> Slots:
    """Two motorways one over the other and the four ramps between them."""
    lane = {"grey": (138, 140, 144), "black": (58, 58, 62), "brown": (146, 118, 92)}[scene.tint]
    for x in (-1, 1):
        for y in (-1, 1):
            angles = [math.tau * i / 32 for i in range(33)]
            loop = [(x * (24 + 14 * math.cos(angle)), y * (24 + 14 * math.sin(angle))) for angle in angles]
            b.line(loop, 6, shade(lane, 0.94))
    for degrees, height in ((0, 0), (90, 5)):
        deck = b.at(0, 0, degrees)
        deck.box(0, 0, 240, 21, (196, 194, 188), height)
        deck.box(0, 0, 240, 18.6, lane)
        deck.box(0, 0, 240, 1, (206, 204, 196))
        for across in (-4.7, 4.7):
            deck.dashes(-110, 110, across, 0.5, LINE)
    return [(-40, 7, 180), (38, -7, 0), (-24, -7, 0), (7, -26, 90), (-7, 34, -90), (7, 20, 90), (-7, -6, -90)]


def roundabout(b: Brush, scene: Scene) -> Slots:
    """A ring of road, four approaches, and the round middle."""
    for degrees in (0, 90):
        road(b.at(0, 0, degrees), 11)
    b.disc(0, 0, 33, shade(SOIL, 1.05))
    b.disc(0, 0, 31.5, ASPHALT)
    b.disc(0, 0, 18.4, LINE)
    middle = shade(PAINT[scene.tint], 0.92)
    b.disc(0, 0, 17.6, middle)
    b.surface(b.blob(15, 15, 0.05), middle, 0.16, 24)
    return ring(7, 25, 25)


def church(b: Brush, scene: Scene) -> Slots:
    """A cross of two roofs with a tower, in a paved yard."""
    b.surface([(-34, -44), (34, -44), (34, 42), (-34, 42)], CONCRETE, 0.06, 24)
    roof = PAINT[scene.tint]
    house(b.at(0, -8, 90), roof, 56, 17)
    house(b.at(0, -14), roof, 42, 15)
    b.polygon([(0, -20), (6, -14), (0, -8), (-6, -14)], shade(roof, 1.12))
    b.box(0, 20, 13, 11, shade(roof, 0.7), 9)
    for i, tone in enumerate((1.15, 0.9, 0.62, 0.8)):
        corners = [(-5, 15), (5, 15), (5, 25), (-5, 25)]
        b.polygon([corners[i], corners[(i + 1) % 4], (0, 20)], shade(roof, tone))
    return [*grid((-27, -15, 0, 15, 27), (34,), 90), (-27, 16, 90), (27, 16, 90)]


def school(b: Brush, scene: Scene) -> Slots:
    """Three wings around a yard with places for courts below."""
    b.surface([(-44, -42), (44, -42), (44, 44), (-44, 44)], shade(CONCRETE, 0.94), 0.06, 24)
    roof = PAINT[scene.tint]
    for x in (-36, 36):
        flat(b.at(x, -19), roof, 13, 40)
    flat(b.at(0, -34), roof, 85, 13)
    b.box(0, -13, 52, 20, (92, 128, 66))
    for x in (-18, -6, 6, 18):
        tree(b.at(x, -13), jittered(b, LEAF["green"], 0.2), 3.6)
    return grid((-19, 19), (12, 32))


def factory(b: Brush, scene: Scene) -> Slots:
    """Halls under saw-tooth roofs on concrete."""
    b.surface([(-48, -44), (48, -44), (48, 46), (-48, 46)], shade(CONCRETE, 0.9), 0.08, 24)
    roof = PAINT[scene.tint]
    for x, y, w, h in ((-26, -19, 36, 36), (22, -24, 44, 26), (-22, 30, 44, 20), (28, 18, 30, 30)):
        b.box(x, y, w, h, shade(roof, 0.95), 3.5)
        for i in range(int(w / 4)):
            b.box(x - w / 2 + 2 + i * 4, y, 1.6, h, shade(roof, 0.72))
    return [(4, -3, 0), (-40, 8, 0), (6, 14, 0), (42, -4, 0), (-8, 10, 0)]


def downtown(b: Brush, scene: Scene) -> Slots:
    """City blocks around a square; blocks without a tower are low or planted."""
    b.box(0, 20, 300, 136, ASPHALT)
    blocks = [(x, y) for x in (-60, -30, 0, 30, 60) for y in (-32, -2, 28, 58)]
    for x, y in blocks:
        b.box(x, y, 23, 23, shade(CONCRETE, 0.96) if b.rng.random() < 0.6 else (98, 126, 72))
        for dx, dy in ((-8, -8), (8, -8), (-8, 8), (8, 8)):
            tree(b.at(x + dx, y + dy), jittered(b, LEAF["green"], 0.2), 2.2)
    b.box(0, -2, 22, 22, PAINT[scene.tint])
    for reach in (9, 6, 3):
        b.disc(0, -2, reach, shade(PAINT[scene.tint], 0.84 if reach != 6 else 1.05))
    b.disc(0, -2, 2.2, (96, 160, 196))
    return [(x, y, 0) for x in (-30, 0, 30) for y in (-32, -2, 28) if (x, y) != (0, -2)]
