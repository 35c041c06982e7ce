"""The colour words of the captions as they look from the air: painted things, leaves, water, sand, crops."""

from dataset.drawn.brush import Brush, Colour, shade

PAINT: dict[str, Colour] = {
    "white": (232, 232, 226),
    "grey": (140, 144, 150),
    "black": (44, 44, 50),
    "red": (182, 52, 44),
    "blue": (52, 100, 178),
    "green": (64, 142, 78),
    "yellow": (230, 196, 58),
    "orange": (224, 128, 44),
    "brown": (122, 82, 54),
}
LEAF: dict[str, Colour] = {"green": (58, 92, 46), "orange": (196, 112, 40), "yellow": (188, 162, 62)}
WATER: dict[str, Colour] = {
    "blue": (46, 92, 144),
    "green": (62, 122, 92),
    "brown": (132, 104, 70),
    "black": (34, 44, 56),
}
SAND: dict[str, Colour] = {
    "yellow": (216, 186, 122),
    "white": (232, 224, 206),
    "grey": (168, 162, 152),
    "orange": (206, 138, 82),
    "brown": (152, 116, 84),
}
CROP: dict[str, Colour] = {"green": (92, 136, 62), "yellow": (204, 180, 92), "brown": (136, 104, 74)}
SEA, GRASS, SOIL = (40, 92, 134), (104, 126, 72), (150, 128, 98)
ASPHALT, CONCRETE = (88, 90, 94), (172, 170, 162)
LINE = (226, 226, 220)


def jittered(brush: Brush, colour: Colour, by: float = 0.07) -> Colour:
    """The colour a little lighter or darker, so that no two things are quite alike."""
    return shade(colour, brush.rng.uniform(1 - by, 1 + by))
