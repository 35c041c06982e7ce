"""Caption cleaning."""

import json
from pathlib import Path

import pytest

from dataset.captions import clean_caption
from utils.errors import InputError

PARITY = Path(__file__).parent / "parity" / "captions.json"


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Many planes, near a terminal .", "many planes near a terminal"),
        ("a,b.c'd!e?f\"g(h)i*j#k:l;m~n", "abcdefghijklmn"),
        ("  twenty-two   courts/fields\n", "twenty two courts fields"),
        ("a <Person> & a <dog>", "a person & a <dog>"),
        ("café — 50%", "café — 50%"),
    ],
)
def test_cleaning_rules(raw, cleaned):
    assert clean_caption(raw) == cleaned


def test_words_past_the_limit_are_cut_after_cleaning():
    assert clean_caption("one-two three. four", max_words=3) == "one two three"
    assert len(clean_caption("word " * 50).split()) == 30


@pytest.mark.parametrize("raw", ["", "...", "?!", "   ", " . ", "-/-"])
def test_a_caption_of_which_nothing_is_left_is_an_error(raw):
    with pytest.raises(InputError, match="no word left"):
        clean_caption(raw)


def test_text_that_cannot_be_encoded_is_an_error():
    with pytest.raises(InputError, match="Unicode"):
        clean_caption("a \ud800 plane")


def test_cleaning_agrees_with_the_released_code():
    for case in json.loads(PARITY.read_text(encoding="utf-8")):
        assert clean_caption(case["raw"], case["max_words"]) == case["expected"]
