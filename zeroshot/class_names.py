"""Classes as data sets name them, and the words that a text encoder is asked with."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.errors import InputError, shown
from utils.files import read_json

PUBLISHED = Path(__file__).with_name("class_names.json")
AS_GIVEN = "as_given"


def published_names() -> dict[str, dict[str, str]]:
    """The words of AID's, UCM's, NWPU-RESISC45's and RSICD's classes, by data set and class."""
    return read_json(PUBLISHED)


def class_words(classes: Sequence[str], names: str | None) -> tuple[list[str], str]:
    """The words of each class, and where they come from, for people to read.

    names: a JSON file of `{"class": "words"}`; `as_given`: a class's own name, `_` and `-` as spaces; None: the
    published table. A class is looked up as it is written, then without regard to case, spaces, `_` and `-`. Raises
    InputError for classes that the table does not name, and for two of the same words.
    """
    if names == AS_GIVEN:
        words, source = [" ".join(re.split(r"[\s_-]+", one)).strip() for one in classes], "the classes' own names"
    else:
        source = names or f"{PUBLISHED.parent.name}/{PUBLISHED.name}"
        table = _given_table(names) if names else _joint(published_names())
        found = [table.get(one) or table.get(_plain(one)) for one in classes]
        unnamed = [one for one, words_of in zip(classes, found, strict=True) if words_of is None]
        if unnamed:
            first = ", ".join(unnamed[:5]) + (", ..." if len(unnamed) > 5 else "")
            raise InputError(
                f"{len(unnamed)} of {len(classes)} classes have no words in {source}: {first}; give --names FILE, JSON "
                f'of {{"class": "words"}}, or --names {AS_GIVEN} for words as the classes are called'
            )
        words = [words_of for words_of in found if words_of]
    class_of: dict[str, str] = {}
    for one, words_of in zip(classes, words, strict=True):
        if not words_of:
            raise InputError(f"class {shown(one)} has no words in {source}; give --names FILE")
        if (other := class_of.setdefault(words_of, one)) != one:
            raise InputError(f"classes {other} and {one} are both {shown(words_of)} in {source}, so nothing tells them")
    return words, source


def _given_table(file: str) -> dict[str, str]:
    """A file's table, under its own names and, where these say nothing else, the plain ones."""
    given = read_json(file, "JSON of class names")
    if not isinstance(given, dict) or not given:
        raise InputError(f'{file} must be JSON of {{"class": "words"}}, with at least one class')
    for key, words in given.items():
        if not isinstance(words, str) or not words.strip():
            raise InputError(f"{file}: the words of class {shown(key)} are {shown(words)}; give a text")
    stripped = {key: words.strip() for key, words in given.items()}
    return {_plain(key): words for key, words in reversed(stripped.items())} | stripped


def _joint(tables: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """One table of several that agree on the classes that they share."""
    return {_plain(key): words for table in tables.values() for key, words in table.items()}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())
