"""A small index of tiles whose vectors and places are made here, and a model that knows as little."""

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
from transformers import BertTokenizer

from search.columns import FileRecord, Row
from search.items import PictureFile, Tile, Tiling
from search.table import About, create

DIM = 8
ABOUT = About("ab" * 32, "outputs/model", DIM, Tiling())
WORDS = ("river", "stadium", "snow", "beside", "a")


def axis(number, turned=0.0):
    """The unit vector along an axis, turned a little towards the next."""
    vector = np.zeros(DIM, dtype=np.float32)
    vector[number], vector[(number + 1) % DIM] = np.cos(turned), np.sin(turned)
    return vector


def square(west, south, side=1.0):
    """The corners of a footprint."""
    return ((west, south), (west + side, south), (west + side, south + side), (west, south + side))


def row(path="/p/a.tif", *, window=(0, 0, 8, 8), size=1, modified=1, footprint=None, taken="2024-05-01", whole=True):
    """A tile of a file, taken at a date."""
    moment = datetime.fromisoformat(taken).replace(tzinfo=UTC) if taken else None
    return Row(PictureFile(path, size, modified), Tile(window, whole, footprint), moment)


def record(path, rows=1, **said):
    return FileRecord(path, **({"size": 1, "modified": 1, "rows": rows, "empty": 0} | said))


def index_of(folder, *tiles):
    """An index of (row, vector) pairs, each file with its record."""
    index = create(folder / "index", ABOUT)
    rows = [tile for tile, _ in tiles]
    paths = dict.fromkeys(tile.file.path for tile in rows)
    index.add(rows, np.stack([vector for _, vector in tiles]), [record(path) for path in paths])
    return index


class SmallModel:
    """Each word of `WORDS` is an axis; a picture is the axis that its first pixel says."""

    config = SimpleNamespace(max_tokens=12)

    def __init__(self, folder):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        self.tokenizer = BertTokenizer(str(folder / "vocab.txt"))
        self.asked = []

    def embed_texts(self, sentences):
        self.asked.append(list(sentences))
        found = [sum(axis(WORDS.index(word)) for word in text.split() if word in WORDS) for text in sentences]
        return np.stack([vector / np.linalg.norm(vector) for vector in found])

    def embed_images(self, pictures):
        self.asked.append(list(pictures))
        return np.stack([axis(int(picture[0, 0, 0])) for picture in pictures])
