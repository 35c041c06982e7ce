import json
import random
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer, BertTokenizer

from dataset.drawn import objects, pictures, scenes
from dataset.drawn.brush import Brush
from dataset.drawn.grammar import NUMBERS, SPLIT_TURNS, Scene, capacity, captions_of, plural, scene_at
from dataset.drawn.kinds import KINDS
from dataset.drawn.pictures import draw_scene
from dataset.drawn.scenes import draw_scenes
from utils.errors import InputError

SMALL = {"train": 33, "val": 2, "test": 31, "size": 48}
DEFAULT = {"train": 1200, "val": 150, "test": 200}

# What people call these colours, apart from the colours that the drawing uses.
MEANT = {
    "white": (240, 240, 240),
    "grey": (150, 150, 150),
    "black": (20, 20, 20),
    "red": (190, 40, 40),
    "blue": (40, 90, 180),
    "green": (60, 130, 60),
    "yellow": (225, 190, 80),
    "orange": (225, 130, 50),
    "brown": (125, 85, 60),
}
NEIGHBOUR_WORDS = {
    "road": "road street",
    "river": "river stream",
    "railway": "railway tracks",
    "forest": "wood trees",
    "field": "field",
    "houses": "houses",
    "coast": "coast",
    "reef": "reef",
    "bar": "sandbank sand",
}


def drawn(split: str, index: int, size: int = 48) -> tuple[Scene, Image.Image, list[str]]:
    scene, rng = scene_at(split, index, 0), random.Random(index)
    captions = captions_of(scene, rng)
    return scene, draw_scene(scene, rng, size), captions


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "scenes"
    draw_scenes(path, **SMALL)
    return path


def read(folder: Path, split: str) -> list[dict]:
    return json.loads((folder / f"scenes_{split}.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_annotation_files_have_the_shape_that_training_reads(folder):
    train, test = read(folder, "train"), read(folder, "test")
    assert len(train) == 5 * SMALL["train"] and len(test) == SMALL["test"]
    assert all(entry.keys() == {"caption", "image", "image_id", "label", "label_name"} for entry in train)
    assert Counter(entry["image_id"] for entry in train) == {i: 5 for i in range(SMALL["train"])}
    assert all(len(entry["caption"]) == 5 for entry in test)
    assert {entry["label"]: entry["label_name"] for entry in train + test} == dict(enumerate(KINDS))
    for entry in train + test + read(folder, "val"):
        assert Image.open(folder / entry["image"]).size == (48, 48)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(folder, tmp_path):
    draw_scenes(tmp_path / "again", **SMALL)
    draw_scenes(tmp_path / "other", **SMALL, seed=1)
    first, other = contents(folder), contents(tmp_path / "other")
    assert contents(tmp_path / "again") == first
    images = [name for name in first if name.endswith(".jpg")]
    assert len(images) == 66 and all(first[name] != other[name] for name in images)


def test_a_picture_does_not_depend_on_how_many_there_are(folder, tmp_path):
    draw_scenes(tmp_path / "few", train=2, val=1, test=3, size=48)
    few, many = contents(tmp_path / "few"), contents(folder)
    assert all(few[name] == many[name] for name in few if name.endswith(".jpg"))
    assert read(tmp_path / "few", "test") == read(folder, "test")[:3]


def test_a_complete_folder_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr(scenes, "draw_scene", None)  # would fail if called
    before = contents(folder)
    draw_scenes(folder, **SMALL)
    assert contents(folder) == before


def test_an_empty_folder_is_filled(tmp_path):
    draw_scenes(tmp_path, train=1, val=1, test=1, size=32)
    assert len(read(tmp_path, "train")) == 5
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


@pytest.mark.parametrize("name, content", [("notes.txt", "mine"), ("scenes.json", "[]"), ("scenes.json", "{broken")])
def test_a_foreign_folder_is_refused_and_kept(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="choose another folder"):
        draw_scenes(tmp_path, **SMALL)
    assert contents(tmp_path) == {name: content.encode()}


def test_other_parameters_a_missing_picture_and_a_file_are_refused(tmp_path):
    numbers = {"train": 1, "val": 1, "test": 1, "size": 32}
    draw_scenes(tmp_path / "scenes", **numbers)
    with pytest.raises(InputError, match="seed 0 not 5"):
        draw_scenes(tmp_path / "scenes", **numbers, seed=5)
    (tmp_path / "scenes" / "images" / "val_00000.jpg").unlink()
    with pytest.raises(InputError, match=r"1 files are missing, images/val_00000.jpg"):
        draw_scenes(tmp_path / "scenes", **numbers)
    with pytest.raises(InputError, match="is a file"):
        draw_scenes(tmp_path / "scenes" / "vocab.txt", **numbers)
    with pytest.raises(InputError, match="cannot be written"):
        draw_scenes(tmp_path / "scenes" / "vocab.txt" / "below", **numbers)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"test": 10**6}, {"size": 8}])
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*; give a number from"):
        draw_scenes(tmp_path / "scenes", **wrong)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch, interruption):
    calls = []

    def interrupted(scene, rng, size):
        calls.append(scene)
        if len(calls) == 4:
            raise interruption
        return draw_scene(scene, rng, size)

    monkeypatch.setattr(scenes, "draw_scene", interrupted)
    with pytest.raises(interruption):
        draw_scenes(tmp_path / "scenes", **SMALL)
    assert len(calls) == 4 and not list(tmp_path.iterdir())


def test_no_scene_is_drawn_twice_in_a_split_or_across_splits():
    for numbers in (DEFAULT, {split: capacity(split) for split in SPLIT_TURNS}):
        every = [scene_at(split, index, 0) for split, count in numbers.items() for index in range(count)]
        assert len(set(every)) == len(every) == sum(numbers.values())


def test_a_scene_states_all_that_its_full_caption_states():
    """No caption set of the test split can be one of the training split: the full captions always differ."""
    captions = {}
    for split, count in DEFAULT.items():
        captions[split] = {frozenset(captions_of(scene_at(split, i, 0), random.Random(i))) for i in range(count)}
        assert len(captions[split]) == count
    assert not captions["train"] & captions["test"] and not captions["val"] & captions["test"]


def said(caption: str, kind: str) -> dict[str, object]:
    """What a caption says, read from its words alone."""
    k, facts = KINDS[kind], {}
    nouns = sorted({form for noun in k.objects for form in (noun, plural(noun))}, key=len, reverse=True)
    things = re.search(rf"\b({'|'.join(NUMBERS)}|an?) (\w+) ({'|'.join(nouns)})\b", caption)
    if things:
        number, facts["colour"], noun = things.groups()
        facts["count"] = 1 if number in ("a", "an") else NUMBERS.index(number)
        assert (noun in k.objects) == (facts["count"] == 1), caption
    mains = "|".join(main.removeprefix("a ") for main in sorted(k.main, key=len, reverse=True))
    main = re.search(rf"\b({'|'.join(k.tints)}) ({mains})\b", caption)
    if main:
        facts["tint"] = main[1]
    rest = caption
    phrases = [*k.names, *nouns, *re.findall(mains, caption), *(match[0] for match in (things, main) if match)]
    for phrase in sorted(phrases, key=len, reverse=True):
        rest = rest.replace(phrase, " ")
    found = [name for name, words in NEIGHBOUR_WORDS.items() if set(words.split()) & set(re.findall(r"\w+", rest))]
    assert len(found) <= 1, (caption, found)
    if found:
        facts["neighbour"] = found[0]
    sides = [side for side, word in (("top", "top|upper"), ("bottom", "bottom|lower"), ("side", "side")) if
             re.search(rf"\b({word})\b", rest)]  # fmt: skip
    assert len(sides) <= 1, caption
    if sides:
        facts["side"] = sides[0]
    return facts


class Seen:
    """What a drawing did: each object with its colour word and place, the neighbour and its edge."""

    def __init__(self, monkeypatch):
        self.objects, self.neighbours = [], []
        for name, draw in pictures.NEIGHBOURS.items():
            monkeypatch.setitem(pictures.NEIGHBOURS, name, self.neighbour(name, draw))
        for module in (pictures, pictures.town):
            monkeypatch.setattr(module, "draw_object", self.object)

    def neighbour(self, name, draw):
        def drawing(brush: Brush):
            self.neighbours.append((name, brush.origin / brush.image.width))
            return draw(brush)

        return drawing

    def object(self, brush: Brush, noun: str, colour: str) -> None:
        self.objects.append((noun, colour, 100 * brush.origin / brush.image.width))
        objects.draw_object(brush, noun, colour)


def test_captions_say_what_is_drawn(monkeypatch):
    facts_said = Counter()
    for index in range(4 * len(KINDS)):
        with monkeypatch.context() as patch:
            seen = Seen(patch)
            scene, _, captions = drawn("train", index, size=32)
        noun = KINDS[scene.kind].objects[0]
        colours = [colour for drawn_noun, colour, _ in seen.objects if drawn_noun == noun]
        [(neighbour, at)] = seen.neighbours
        edge = "top" if at.imag < 0.25 else "bottom" if at.imag > 0.75 else "side"
        truth = {"count": len(colours), "neighbour": neighbour, "side": edge, "tint": scene.tint}
        assert len(set(colours)) == 1
        for caption in captions:
            facts = said(caption, scene.kind)
            assert facts.items() <= {**truth, "colour": colours[0]}.items(), caption
            facts_said.update(facts.keys())
            assert 2 <= len(caption.split()) <= 30 and caption == caption.lower()
            assert not re.search(r"\b(left|right)\b", caption)
        merged = {key for caption in captions for key in said(caption, scene.kind)}
        assert merged == {"count", "colour", "neighbour", "side", "tint"}, captions
    assert min(facts_said.values()) > 5 * len(KINDS)


def test_objects_can_be_counted_inside_the_picture_and_apart(monkeypatch):
    for index in range(10 * len(KINDS)):
        with monkeypatch.context() as patch:
            seen = Seen(patch)
            scene, _, _ = drawn("train", index, size=32)
        spots = [at for noun, _, at in seen.objects if noun == KINDS[scene.kind].objects[0]]
        assert all(3 < at.real < 97 and 3 < at.imag < 97 for at in spots), (scene, spots)
        assert all(abs(first - second) > 6 for first, second in combinations(spots, 2)), (scene, spots)


def told_apart(shown: list[np.ndarray], words: tuple[str, ...]) -> list[str]:
    """For each picture `[H, W, 3]`, all alike but for one thing's colour, the word that fits that colour best.

    Colours are compared as departures from the mean of all, at one scale, which takes out the shadows and lines
    that the pictures share.
    """
    painted = np.ptp(np.stack(shown), axis=0).max(axis=-1) > 30
    assert painted.mean() > 0.0015  # a car is about that much of a picture
    seen = np.stack([picture[painted].mean(axis=0) for picture in shown])  # [words, 3]
    meant = np.array([MEANT[word] for word in words], float)
    seen, meant = (part - part.mean(axis=0) for part in (seen, meant))
    seen, meant = (part / np.linalg.norm(part) for part in (seen, meant))
    distances = np.linalg.norm(seen[:, None] - meant, axis=-1)
    return [words[best] for best in distances.argmin(axis=1)]


@pytest.mark.parametrize("kind", KINDS)
def test_objects_have_the_colour_of_their_word(kind):
    noun, words = KINDS[kind].objects[0], KINDS[kind].colours
    pictures_of = []
    for colour in words:
        brush = Brush.blank(48, random.Random(3))
        objects.draw_object(brush.at(0, 0, 0, 0.8), noun, colour)
        pictures_of.append(np.asarray(brush.image, np.float32))
    assert told_apart(pictures_of, words) == list(words)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "parking lot"])
def test_the_main_thing_has_the_colour_of_its_tint(kind):
    k = KINDS[kind]
    shown = []
    for tint in k.tints:
        scene = Scene(kind, tint, k.counts[0], k.colours[0], k.neighbours[0], "top")
        shown.append(np.asarray(draw_scene(scene, random.Random(5), 64), np.float32))
    assert told_apart(shown, k.tints) == list(k.tints)


def test_a_parking_lot_with_many_cars_has_more_than_one_with_few(monkeypatch):
    cars = {}
    for tint in ("many", "few"):
        with monkeypatch.context() as patch:
            seen = Seen(patch)
            draw_scene(Scene("parking lot", tint, 2, "red", "road", "top"), random.Random(0), 32)
        cars[tint] = sum(noun == "car" for noun, _, _ in seen.objects)
    assert cars["many"] > 25 and 2 < cars["few"] < 8


def test_captions_and_pictures_vary():
    captions, images = [], set()
    for index in range(200):
        scene = scene_at("test", index, 0)
        captions.append((scene, captions_of(scene, random.Random(index))))
    for index in range(len(KINDS)):
        images.add(drawn("test", index, size=32)[1].tobytes())
    assert len(KINDS) == len(images) == 30
    texts = [caption for _, five in captions for caption in five]
    assert len(set(texts)) > 0.95 * len(texts)
    fits = []
    for scene, five in captions:
        alike = [vars(other) for other, _ in captions if other.kind == scene.kind]
        for caption in five:
            facts = said(caption, scene.kind)
            fits.append(sum(facts.items() <= other.items() for other in alike))
    assert min(fits) == 1 and fits.count(1) > 0.85 * len(fits)  # most captions fit one picture of the 200


def test_the_folder_is_a_tokenizer_that_knows_every_word(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer.pad_token_id == 0
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = [c for i in range(600) for c in captions_of(scene_at("train", i, 0), random.Random(i))]
    for caption, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert tokenizer.convert_ids_to_tokens(ids)[1:-1] == re.findall(r"\w+|,", caption)  # whole words, no [UNK]
        assert len(ids) <= 47
    bert = BertTokenizer.from_pretrained(folder, local_files_only=True)
    assert bert("A RED Plane")["input_ids"] == tokenizer("a red plane")["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer("zeppelins over 37 fjords!")["input_ids"]
    assert len(tokenizer) < 600
