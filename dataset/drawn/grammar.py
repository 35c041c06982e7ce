"""Which scenes there are and how captions say what is in them.

A `Scene` is the one source of a picture (`draw_scene`) and of its captions, so a caption cannot say other than
what is drawn. No caption says left or right: training flips pictures, and the words would turn false.
"""

import random
from dataclasses import dataclass
from functools import cache
from itertools import product

from dataset.drawn.kinds import KINDS

SIDES = ("top", "bottom", "side")
SPLIT_TURNS = {"train": (0, 1, 2, 3, 4, 5, 6, 7), "val": (8,), "test": (9,)}  # of every ten scenes of a kind


@dataclass(frozen=True)
class Scene:
    """What one picture shows; `side` is the edge where the neighbour lies."""

    kind: str
    tint: str
    count: int
    colour: str
    neighbour: str
    side: str


NEIGHBOURS = {
    "road": ("a road", "a street"),
    "river": ("a river", "a stream"),
    "railway": ("a railway", "railway tracks"),
    "forest": ("a wood", "many trees"),
    "field": ("a ploughed field", "a crop field"),
    "houses": ("a row of houses", "some houses"),
    "coast": ("a coast", "a green coast"),
    "reef": ("a reef", "a pale reef"),
    "bar": ("a sandbank", "a bank of sand"),
}
PLACES = {
    "top": ("at the top", "along the top", "in the upper part"),
    "bottom": ("at the bottom", "along the bottom", "in the lower part"),
    "side": ("on one side", "along one side", "at the side"),
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")

# K the kind, M its main thing, O the objects, N the neighbour; each caption of a picture is of another row.
FORMS = (
    (
        "{K} with {M} and {O}, and {N} {place}",
        "{O} {relation} {M} of {K}, and {N} {place} of the picture",
        "{N} {place}, and {O} {relation} {M} of {K}",
        "this is {K} that has {M}, {O} and {N} {place}",
    ),
    (
        "there {be} {O} {relation} {M} of {K}",
        "{O} {be} {relation} {M} in this picture of {K}",
        "we can see {O} {relation} {M} of {K}",
        "{K} has {M} with {O}",
    ),
    (
        "{K} with {O} near {N}",
        "{O} {where} {K} next to {N}",
        "{K} close to {N} with {O}",
        "{N} {place}, beside {K} with {O}",
    ),
    (
        "{K} with {M}, {N} {place}",
        "{N} {place} and {K} with {M}",
        "{M} of {K} by {N} {place}",
        "{N} {place} of the picture and {M} of {K}",
    ),
    (
        "{O} {where} {K}",
        "{K} and {O}",
        "{O} {relation} {M}",
        "{M} and {O} seen from above",
    ),
)


@cache
def _order(kind: str, seed: int) -> list[int]:
    """The scenes of a kind in the order pictures take them."""
    order = list(range(len(_scenes(kind))))
    random.Random(f"{seed} {kind}").shuffle(order)
    return order


@cache
def _scenes(kind: str) -> list[tuple]:
    """Every combination that the kind allows."""
    k = KINDS[kind]
    return list(product((kind,), k.tints, k.counts, k.colours, k.neighbours, SIDES))


def capacity(split: str) -> int:
    """The largest number of pictures of a split: no scene is drawn twice, in one split or in two."""
    smallest = min(len(_scenes(kind)) for kind in KINDS)
    return len(KINDS) * (smallest // 10) * len(SPLIT_TURNS[split])


def scene_at(split: str, index: int, seed: int) -> Scene:
    """The scene of picture `index` of a split; kinds take turns, and no other picture has the same scene."""
    round_, turn = divmod(index, len(KINDS))
    kind = list(KINDS)[turn]
    turns = SPLIT_TURNS[split]
    tens, one = divmod(round_, len(turns))
    return Scene(*_scenes(kind)[_order(kind, seed)[tens * 10 + turns[one]]])


def captions_of(scene: Scene, rng: random.Random) -> list[str]:
    """Five captions `[5]` of one scene, each in another form, at most 30 words."""
    return [_caption(scene, rng.choice(row), rng) for row in rng.sample(FORMS, len(FORMS))]


def _caption(scene: Scene, form: str, rng: random.Random) -> str:
    kind = KINDS[scene.kind]
    main, tint = rng.choice(kind.main), scene.tint
    noun = rng.choice(kind.objects)
    number = NUMBERS[scene.count] if scene.count > 1 else rng.choice(("one", _article(scene.colour)))
    return form.format(
        K=f"{_article(name := rng.choice(kind.names))} {name}",
        M=f"{_article(tint)} {tint} {main[2:]}" if main.startswith("a ") else f"{tint} {main}",
        O=f"{number} {scene.colour} {noun if scene.count == 1 else plural(noun)}",
        N=rng.choice(NEIGHBOURS[scene.neighbour]),
        place=rng.choice(PLACES[scene.side]),
        relation=rng.choice(kind.relations),
        where=kind.where,
        be="is" if scene.count == 1 else "are",
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """The regular plural; of "block of panels", the block's."""
    head, of, rest = noun.partition(" of ")
    if head.endswith("y") and head[-2] not in "aeiou":
        return head[:-1] + "ies" + of + rest
    return head + ("es" if head.endswith(("s", "ch", "x")) else "s") + of + rest


def words() -> list[str]:
    """Every word a caption can hold, sorted."""
    texts = {word for row in FORMS for form in row for word in form.split() if "{" not in word}
    texts.update(("a", "an", "is", "are"), NUMBERS, *NEIGHBOURS.values(), *PLACES.values())
    for kind in KINDS.values():
        texts.update(kind.names, (kind.where,), kind.main, kind.tints, kind.colours, kind.relations, kind.objects)
        texts.update(plural(noun) for noun in kind.objects)
    return sorted({word.strip(",") for text in texts for word in text.split()})
