"""The picture of a scene: a ground, the neighbour at an edge, the main thing, the objects.

A picture is laid out with its neighbour at the top and then turned to the scene's side.
"""

import random
from collections.abc import Callable

from PIL import Image

from dataset.drawn import country, town
from dataset.drawn.brush import Brush, Colour
from dataset.drawn.colours import CROP, GRASS, LEAF, SAND, SEA, jittered
from dataset.drawn.grammar import Scene
from dataset.drawn.kinds import KINDS
from dataset.drawn.layout import Slots
from dataset.drawn.neighbours import NEIGHBOURS
from dataset.drawn.objects import draw_object, tree

TURNS = {"top": 0, "bottom": 180, "side": 90}  # degrees; `finished` mirrors half of the pictures

# For each kind: how it is drawn, how far it may turn against the neighbour (degrees), trees strewn about.
MOTIFS: dict[str, tuple[Callable[[Brush, Scene], Slots], float, int]] = {
    "airport": (town.airport, 8, 12),
    "stadium": (town.stadium, 180, 25),
    "river": (country.waterway, 6, 45),
    "bridge": (country.bridge, 6, 40),
    "farmland": (country.farmland, 7, 0),
    "forest": (country.woodland, 6, 0),
    "harbour": (country.harbour, 4, 0),
    "parking lot": (town.parking, 15, 25),
    "running track": (town.track, 180, 30),
    "tennis courts": (town.tennis, 25, 40),
    "baseball fields": (town.baseball, 25, 25),
    "storage tanks": (town.tanks, 25, 20),
    "dense residential": (town.dense, 5, 0),
    "sparse residential": (country.sparse, 15, 25),
    "beach": (country.beach, 5, 12),
    "desert": (country.desert, 12, 0),
    "railway station": (town.station, 4, 10),
    "overpass": (town.overpass, 20, 40),
    "roundabout": (town.roundabout, 45, 40),
    "pond": (country.pond, 180, 0),
    "church": (town.church, 25, 35),
    "school": (town.school, 20, 30),
    "factory": (town.factory, 20, 12),
    "mountain": (country.mountain, 10, 0),
    "island": (country.island, 15, 0),
    "golf course": (country.golf, 12, 45),
    "wind farm": (country.wind_farm, 12, 0),
    "solar farm": (country.solar_farm, 15, 12),
    "downtown": (town.downtown, 8, 0),
    "greenhouses": (country.greenhouses, 12, 15),
}
GROUNDS: dict[str, dict[str, tuple[Colour, float]]] = {  # by tint: colour and how much it varies; else grass
    "island": {tint: (SEA, 0.1) for tint in KINDS["island"].tints},
    "desert": {tint: (SAND[tint], 0.07) for tint in KINDS["desert"].tints},
    "sparse residential": {tint: (CROP[tint], 0.13) for tint in CROP},
    "wind farm": {tint: (CROP[tint], 0.1) for tint in CROP},
}


def draw_scene(scene: Scene, rng: random.Random, size: int) -> Image.Image:
    """The picture `[size, size]` of a scene; the scene says what is in it, `rng` where and how exactly."""
    page = Brush.blank(size, rng).at(0, 0, TURNS[scene.side])
    motif, freedom, trees = MOTIFS[scene.kind]
    ground, depth = GROUNDS.get(scene.kind, {}).get(scene.tint, (GRASS, 0.2))
    page.surface(None, jittered(page, ground), depth)
    for _ in range(trees):  # strewn first, so that all the rest lies over them
        at = page.at(rng.uniform(-52, 52), rng.uniform(-30, 52))
        tree(at, jittered(page, LEAF["green"], 0.2), rng.uniform(1.8, 3))
    NEIGHBOURS[scene.neighbour](page.at(0, -39, rng.uniform(-3, 3)))
    frame = page.at(rng.uniform(-3, 3), 11.5, rng.uniform(-freedom, freedom), rng.uniform(0.76, 0.84))
    place(frame, scene, motif(frame, scene))
    return page.finished()


def place(b: Brush, scene: Scene, slots: Slots) -> None:
    """Draw the scene's objects, each on a slot of its own."""
    noun = KINDS[scene.kind].objects[0]
    for x, y, degrees in b.rng.sample(slots, scene.count):
        slot = b.at(x + b.rng.uniform(-1, 1), y + b.rng.uniform(-1, 1), degrees + b.rng.uniform(-4, 4))
        draw_object(slot, noun, scene.colour)
