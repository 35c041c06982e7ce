"""Configs that came with weights: an exported folder's `config.json`, another program's keys in a run's config.

An exported folder is in Hugging Face's style: config, weights and tokenizer together.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import InputError, shown, warn
from utils.files import read_json
from utils.output import EXPORTED_CONFIG

FORMAT = 1  # of the folder and the weights in it; a reader refuses what it does not know

# What `config.json` holds beside the keys of a config.
ABOUT = {"model_type": "pir", "architectures": ["PIR"], "pir_format": FORMAT}


def is_exported(folder: Path) -> bool:
    """Whether a folder's `config.json` is of a PIR model; InputError where it is damaged."""
    file = folder / EXPORTED_CONFIG
    return file.exists() and _model_type(read_json(file)) == ABOUT["model_type"]


def config_values(file: str | Path) -> dict[str, Any]:
    """The config's values in an exported folder's `config.json`; its tokenizer is the folder, wherever that lies.

    Raises InputError in one line where the file is missing, damaged, of another model or of a later format.
    """
    values = read_json(file, "JSON of an exported model")
    if (kind := _model_type(values)) != ABOUT["model_type"]:
        raise InputError(f"{file} is of no PIR model (model_type {shown(kind)}); Export.py writes such a folder")
    if values.get("pir_format") != FORMAT:
        raise InputError(
            f"{file} has format {shown(values.get('pir_format'))}, this program reads {FORMAT}: take its own version"
        )
    return {key: value for key, value in values.items() if key not in ABOUT} | {"tokenizer": str(Path(file).parent)}


def known_values(values: Mapping[str, Any], known: Any, nested: Mapping[str, Any], file: str | Path) -> dict[str, Any]:
    """The values whose keys are fields of the dataclass `known`, or of those nested in it; of the others it warns."""
    kept: dict[str, Any] = {}
    foreign: list[str] = []
    for key, value in values.items():
        if key not in known.__dataclass_fields__:
            foreign.append(str(key))
        elif key in nested and isinstance(value, dict):
            inner = nested[key].__dataclass_fields__
            kept[key] = {name: value[name] for name in value if name in inner}
            foreign += [f"{key}.{name}" for name in value if name not in inner]
        else:
            kept[key] = value
    if foreign:
        warn(f"{file} has keys that this program does not know, left aside: {', '.join(foreign)}")
    return kept


def _model_type(values: Any) -> Any:
    return values.get("model_type") if isinstance(values, dict) else None
