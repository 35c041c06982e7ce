"""A config value -> the text of its override, for commands that are shown or run."""

import json
from contextlib import suppress
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


def override_of(key: str, value: Any) -> str:
    """The override that gives a dotted key this value."""
    if isinstance(value, str):
        with suppress(YAMLError, ValueError):
            if YAML(typ="safe", pure=True).load(value) == value:
                return f"{key}={value}"  # needs no quotes
    return f"{key}={value if isinstance(value, bool) else json.dumps(value)}"
