"""Caption cleaning, the same words in training and evaluation as the released code gives."""

from utils.errors import InputError

SPACES, REMOVED = "-/", ",.'!?\"()*#:;~"  # characters that become a space, and those that go
MOST_WORDS = 30
_CLEANING = str.maketrans(SPACES, " " * len(SPACES), REMOVED)


def clean_caption(raw: str, max_words: int = MOST_WORDS) -> str:
    """Lower-cased caption without punctuation, single-spaced, its first `max_words` words.

    Raises `InputError` where no word is left, and where the text cannot be encoded (a lone surrogate).
    """
    words = raw.lower().translate(_CLEANING).replace("<person>", "person").split()
    cleaned = " ".join(words[:max_words])
    if not cleaned:
        raise InputError(f"caption {raw[:60]!r} has no word left after cleaning")
    try:
        cleaned.encode()
    except UnicodeEncodeError:
        raise InputError(f"caption {raw[:60]!r} is not valid Unicode text") from None
    return cleaned
