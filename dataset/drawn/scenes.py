"""The drawn default data set: aerial scenes with captions, annotations and a vocabulary, made from a seed.

It needs no download and is small enough to train on with a CPU. It says that the whole of the system learns; it
says nothing of how well the system does on photographs.
"""

import json
import os
import random
import string
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from dataset.drawn.grammar import SPLIT_TURNS, capacity, captions_of, scene_at, words
from dataset.drawn.kinds import KINDS
from dataset.drawn.pictures import draw_scene
from utils.errors import InputError
from utils.files import read_json

FORMAT = 1  # raised when the same parameters begin to give other pictures or captions
MARKER = "scenes.json"  # the parameters of a finished folder
SIZES = range(32, 513)


def draw_scenes(
    folder: str | Path, *, seed: int = 0, train: int = 1200, val: int = 150, test: int = 200, size: int = 112
) -> None:
    """Draw the data set into `folder`, whole or not at all; leave it alone where it is drawn already.

    The folder is the image root and also a BERT tokenizer's folder. It gets `images/*.jpg` (`size` by `size`
    pixels), `scenes_train.json`, `scenes_val.json`, `scenes_test.json`, `vocab.txt`, `tokenizer_config.json` and
    the marker `scenes.json`. `train`, `val` and `test` count pictures, each with five captions; no two pictures
    show the same scene. A picture depends on the seed, its split and its number alone.

    Raises InputError for numbers out of range, and for a folder that holds anything else.
    """
    folder = Path(folder)
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if not 1 <= count <= capacity(split):
            raise InputError(f"drawn scenes: {split} is {count}; give a number from 1 to {capacity(split)}")
    if size not in SIZES:
        raise InputError(f"drawn scenes: size is {size}; give a number from {SIZES[0]} to {SIZES[-1]}")
    parameters = {"format": FORMAT, "seed": seed, **counts, "size": size}
    try:
        if _is_drawn(folder, parameters):
            return
        place = folder.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as temporary:
            part = Path(temporary) / place.name
            _fill(part, parameters)
            if not _is_drawn(folder, parameters):  # another process may have drawn the same meanwhile
                if folder.exists():
                    place.rmdir()  # empty, as _is_drawn found
                os.replace(part, place)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def _is_drawn(folder: Path, parameters: dict[str, int]) -> bool:
    """Whether the folder is complete with these parameters; False where it is absent or empty."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a folder for drawn scenes; choose another folder")
    if not any(folder.iterdir()):
        return False
    try:
        found = read_json(folder / MARKER)
    except InputError:
        found = None
    if not isinstance(found, dict) or found.keys() != parameters.keys():
        raise InputError(f"{folder}: holds something other than drawn scenes; choose another folder")
    if found != parameters:
        other = ", ".join(f"{key} {found[key]} not {parameters[key]}" for key in found if found[key] != parameters[key])
        raise InputError(f"{folder}: holds scenes drawn with {other}; delete it or choose another folder")
    files = ["vocab.txt", "tokenizer_config.json", *(f"scenes_{split}.json" for split in SPLIT_TURNS)]
    files += [_image(split, index) for split in SPLIT_TURNS for index in range(parameters[split])]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {len(missing)} files are missing, {missing[0]} first; delete it to draw it anew")
    return True


def _fill(folder: Path, parameters: dict[str, int]) -> None:
    """Draw everything into a new folder; the marker comes last."""
    (folder / "images").mkdir(parents=True)
    total = sum(parameters[split] for split in SPLIT_TURNS)
    terminal = sys.stderr.isatty()
    if not terminal:
        print(f"drawing {total} scenes", file=sys.stderr, flush=True)
    with tqdm(total=total, desc="drawing scenes", unit="picture", disable=not terminal) as bar:
        for split in SPLIT_TURNS:
            entries = []
            for index in range(parameters[split]):
                entries += _draw(folder, split, index, parameters["seed"], parameters["size"])
                bar.update()
            _write_json(folder / f"scenes_{split}.json", entries)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    _write_json(folder / MARKER, parameters)


def _draw(folder: Path, split: str, index: int, seed: int, size: int) -> list[dict]:
    """Draw one picture and give its entries for the annotation file of its split."""
    scene = scene_at(split, index, seed)
    rng = random.Random(f"{seed} {split} {index}")
    image, captions = _image(split, index), captions_of(scene, rng)
    draw_scene(scene, rng, size).save(folder / image, quality=92, subsampling=0)
    label = {"label": list(KINDS).index(scene.kind), "label_name": scene.kind}
    if split == "train":
        return [{"caption": caption, "image": image, "image_id": index, **label} for caption in captions]
    return [{"image": image, "caption": captions, **label}]


def _image(split: str, index: int) -> str:
    return f"images/{split}_{index:05d}.jpg"


def _write_json(path: Path, content: list | dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def vocabulary() -> list[str]:
    """A WordPiece vocabulary: every word of the captions whole, and pieces in which any other word can be cut."""
    signs = list(string.ascii_lowercase + string.digits)
    endings = ["s", "es", "ed", "er", "ing", "ly", "y", "en", "al", "ion", "ment", "ness"]
    pieces = ["##" + piece for piece in signs + endings]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *pieces, *words(), *string.punctuation]
    return list(dict.fromkeys(tokens))
