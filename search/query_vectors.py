"""What queries look for, as unit vectors: weighted texts and pictures together, less what is not wanted."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from dataset.captions import clean_caption
from search.columns import WINDOW, literal
from search.items import Window
from search.opening import whole_picture
from search.table import Index
from utils.errors import InputError, listed, printable, shown, warn

if TYPE_CHECKING:
    from search.query import Query

READ_WORDS = 30  # of a text, which `clean_caption` cuts there
TILE = re.compile(r"(.*)#(\d+),(\d+),(\d+),(\d+)", re.DOTALL)


class Model(Protocol):
    """What a query needs of a model that `models.load` gives."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """By which it knows words."""

    @property
    def config(self) -> Any:
        """Its `max_tokens`."""

    def embed_texts(self, sentences: Sequence[str]) -> ndarray:
        """Unit vectors `[N, D]`."""

    def embed_images(self, pictures: Sequence[Any]) -> ndarray:
        """Unit vectors `[N, D]`."""


def query_vectors(index: Index, model: Model, queries: Sequence["Query"]) -> ndarray:
    """The unit vectors `[Q, D]` of queries; all texts are embedded at once, and all pictures.

    Warns of words that the model does not know. Raises InputError where it knows none, where a tile is not in the
    index, and where nothing is left of a query.
    """
    texts = list(dict.fromkeys(text for query in queries for text, _ in (*query.texts, *query.minus)))
    check_texts(texts, model.tokenizer, model.config.max_tokens)
    of_text = dict(zip(texts, model.embed_texts(texts) if texts else (), strict=True))
    pictures = [picture for query in queries for picture, _ in query.pictures]
    rule = index.about.picture_rule
    pixels = {
        i: p if isinstance(p, ndarray) else whole_picture(p, rule)
        for i, p in enumerate(pictures)
        if not isinstance(p, IndexedTile)
    }
    of_picture = dict(zip(pixels, model.embed_images([*pixels.values()]) if pixels else (), strict=True))
    of_picture |= {i: p.vector(index) for i, p in enumerate(pictures) if isinstance(p, IndexedTile)}
    vectors, at = [], 0
    for query in queries:
        parts = [weight * of_text[text] for text, weight in query.texts]
        parts += [weight * of_picture[at + i] for i, (_, weight) in enumerate(query.pictures)]
        parts += [-weight * of_text[text] for text, weight in query.minus]
        at += len(query.pictures)
        vectors.append(_unit(np.sum(parts, axis=0), query, index))
    return np.stack(vectors)


def _unit(total: ndarray, query: "Query", index: Index) -> ndarray:
    if total.shape != (index.about.dim,):
        raise InputError(f"the model gives {len(total)} numbers a picture, the index {index.uri} has {index.about.dim}")
    length = np.linalg.norm(total)
    if not length > 1e-6:
        raise InputError(f"query {shown(query.name)}: its parts cancel out; change its weights")
    return (total / length).astype(np.float32)


class IndexedTile:
    """A picture of the index, by its path, or a tile, as answers name it: `PATH#COLUMN,ROW,WIDTH,HEIGHT`."""

    def __init__(self, name: str) -> None:
        cut = TILE.fullmatch(name)
        self.path = cut[1] if cut else name
        self.window: Window | None = (int(cut[2]), int(cut[3]), int(cut[4]), int(cut[5])) if cut else None

    def __str__(self) -> str:
        return f"{self.path}#{','.join(map(str, self.window))}" if self.window else self.path

    def vector(self, index: Index) -> ndarray:
        """Its unit vector `[D]` in the index; of a picture of several tiles the tile must be named."""
        where = f"path = {literal(self.path)}"
        if self.window:
            where += "".join(f' AND "{name}" = {value}' for name, value in zip(WINDOW, self.window, strict=True))
        found = index.vectors(where)
        if not len(found):
            raise InputError(f"the index {index.uri} has no tile {shown(self.path, 200)} {self.window or ''}".rstrip())
        if len(found) > 1 and not self.window:
            raise InputError(
                f"{shown(self.path, 200)} has {len(found)} tiles in the index; name one, PATH#COLUMN,ROW,WIDTH,HEIGHT"
            )
        return found[0]


Picture = str | Path | ndarray | IndexedTile


def check_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
    """Warn of texts that the model reads in part and of words it does not know; InputError for one it knows nothing of.

    max_tokens: of a text, its beginning and end among them.
    """
    unknown: dict[str, None] = {}
    for text in texts:
        if not text.strip():
            raise InputError("a query's text is empty; say what to look for")
        words = clean_caption(text, max_words=len(text)).split()
        read = _read_words(words, tokenizer, max_tokens)
        if read < len(words):
            warn(f"text {shown(text)} has {len(words)} words, the model reads the first {read} alone")
        strange = [word for word in words[:read] if not _knows(word, tokenizer)]
        if len(strange) == read:
            raise InputError(f"the model knows no word of the text {shown(text)}; say it in other words, in English")
        unknown |= dict.fromkeys(strange)
    if unknown:
        named = listed([f"'{printable(word[:40])}'" for word in unknown], shown=10).replace("problem", "unknown word")
        warn(f"the model does not know some words, and takes all of them for one: {named}")


def _read_words(words: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> int:
    """How many of a text's words the model reads, in part at least."""
    left = max_tokens - tokenizer.num_special_tokens_to_add()
    for number, word in enumerate(words[:READ_WORDS]):
        if left <= 0:
            return number
        left -= len(tokenizer(word, add_special_tokens=False).input_ids)
    return min(len(words), READ_WORDS)


def _knows(word: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return bool(ids) and (tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids)
