"""Small data sets in each published form, of pictures that are all different and the same on every machine."""

import json
import random
from pathlib import Path

from PIL import Image

FORMS = {  # captions file, folder of the pictures
    "rsicd": ("dataset_rsicd.json", "images"),
    "rsitmd": ("dataset_RSITMD.json", "images"),
    "ucm": ("dataset.json", "imgs"),
    "sydney": ("dataset.json", "imgs"),
}
WORDS = ("a green field", "two roads cross", "white houses stand", "a river bends", "the beach is long")


def picture(name, size=(48, 48)):
    """A smooth RGB picture that depends on the name alone."""
    colours = random.Random(name).randbytes(3 * 8 * 8)
    return Image.frombytes("RGB", (8, 8), colours).resize(size, Image.Resampling.BICUBIC)


def entry(name, split, captions=WORDS):
    """A picture's entry in a captions file."""
    sentences = [{"tokens": raw.split(), "raw": raw, "imgid": 0, "sentid": 0} for raw in captions]
    return {"filename": name, "imgid": 0, "sentences": sentences, "split": split, "sentids": [0]}


def make_release(folder: Path, dataset: str, entries) -> Path:
    """The release with these entries, and a picture for each name in them."""
    captions_file, images = FORMS[dataset]
    (folder / images).mkdir(parents=True)
    (folder / captions_file).write_text(json.dumps({"images": entries, "dataset": dataset}))
    for one in entries:
        picture(one["filename"]).save(folder / images / one["filename"])
    return folder
