"""Scene names of several data sets -> common ones, by the table scene_names.json beside this file."""

import re
from functools import lru_cache
from pathlib import Path

from utils.files import read_json

_TABLE = Path(__file__).with_name("scene_names.json")  # {common name: the data sets' names}


def common_scene(name: str) -> str | None:
    """The common name of a scene, whatever its case and separators; None where the table does not have it."""
    return _common_names().get(_squashed(name))


@lru_cache(1)
def _common_names() -> dict[str, str]:
    table: dict[str, list[str]] = read_json(_TABLE)
    return {_squashed(name): common for common, names in table.items() for name in (common, *names)}


def _squashed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
