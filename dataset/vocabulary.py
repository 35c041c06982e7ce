"""What a tokenizer's vocabulary does not know of captions: counted over a data set, and named in one caption."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from utils.errors import InputError


def unknown_share(captions: Mapping[str, Iterable[str]], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A warning with the share of tokens that the vocabulary does not know; None where it knows all.

    captions: cleaned ones, by the name of what they come from. Raises `InputError` that counts the captions of which
    nothing is known and names the first: the model would take all of them for one sentence.
    """
    if tokenizer.unk_token_id is None:  # it spells everything in bytes
        return None
    tokens = unknown = 0
    lost: list[str] = []
    for source, given in captions.items():
        distinct = list(dict.fromkeys(given))
        if not distinct:  # transformers takes no empty list
            continue
        for caption, ids in zip(distinct, tokenizer(distinct, add_special_tokens=False).input_ids, strict=True):
            strange = ids.count(tokenizer.unk_token_id)
            tokens, unknown = tokens + len(ids), unknown + strange
            if strange == len(ids):
                lost.append(f"{caption[:60]!r} of the {source} captions")
    if lost:
        raise InputError(
            f"the vocabulary knows no word of {len(lost)} captions, {lost[0]} first: "
            "take a tokenizer and text encoder of their language, or leave them out"
        )
    if not unknown:
        return None
    return (
        f"warning: the vocabulary does not know {unknown} of the captions' {tokens} tokens ({unknown / tokens:.2%}): "
        "all of them are one word to the model"
    )


class Vocabulary:
    """The vocabulary of a tokenizer's folder, for a caption's words to be looked up in."""

    def __init__(self, folder: Path) -> None:
        from dataset.tokenizer import load_tokenizer

        self.tokenizer = load_tokenizer(folder, vocab_size=2**63)  # whatever text encoder it is for
        self.known: dict[str, bool] = {}

    @property
    def checksum(self) -> str:
        """One SHA-256 over all words and their numbers."""
        words = sorted(self.tokenizer.get_vocab().items())
        return hashlib.sha256(repr(words).encode(errors="surrogatepass")).hexdigest()

    def unknown_words(self, words: Iterable[str]) -> list[str]:
        """The words that the tokenizer turns into its unknown token, in part or as a whole."""
        return [word for word in dict.fromkeys(words) if not self._knows(word)]

    def _knows(self, word: str) -> bool:
        if word not in self.known:
            ids = self.tokenizer(word, add_special_tokens=False).input_ids
            self.known[word] = self.tokenizer.unk_token_id not in ids
        return self.known[word]
