"""Sentences that a class's words are put into."""

from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError, shown
from utils.files import read_text

SLOT = "{}"


def read_templates(file: Path) -> list[str]:
    """The templates of a text file, one a line; blank lines and those that begin with `#` do not count.

    Raises InputError for a file without any, and for a line that has no `{}` or has it more than once.
    """
    templates = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        template = line.strip()
        if not template or template.startswith("#"):
            continue
        if template.count(SLOT) != 1:
            has = "no {}" if SLOT not in template else "more than one {}"
            raise InputError(f"{file} line {number}: {shown(template)} has {has}; write it once, for the class's words")
        templates.append(template)
    if not templates:
        raise InputError(f"{file} holds no template; write one a line, as 'an aerial photograph of {{}}.'")
    return templates


def prompts(words: Sequence[str], templates: Sequence[str]) -> list[str]:
    """C classes' words in T templates -> `C * T` sentences, those of a class together."""
    return [template.replace(SLOT, of_class) for of_class in words for template in templates]
