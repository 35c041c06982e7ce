"""In which keys two configs differ: a recorded one from a study's, a checkpoint's from the released one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.config import SIZE_FILES, Config, config_from_dict
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
UNMEASURED = "num_workers"  # decides nothing of what is trained or measured


def released_values() -> dict[str, Any]:
    """By dotted key, a config's defaults, which are the released values, with the released sizes of the encoders."""
    sizes = {key: str(ROOT / file) for key, file in SIZE_FILES.items()}
    files = {"train_file": ["train.json"], "val_file": "val.json", "test_file": "test.json", "image_root": "images"}
    return _flat(config_from_dict(files | sizes).to_dict())


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By dotted key, in order, what two configs' plain values have where they are not the same."""
    first, second = _flat(before), _flat(now)
    pairs = {key: (first.get(key), second.get(key)) for key in sorted({*first, *second})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and key != UNMEASURED}


def differing_from_recorded(recorded: Any, config: Config, file: Path) -> dict[str, tuple[Any, Any]]:
    """What the config recorded in `file` and `config` have where they differ; a key it lacks has its default.

    Raises InputError where `recorded` is no config.
    """
    try:
        if not isinstance(recorded, Mapping):
            raise InputError("'config' is missing")
        return differing(config_from_dict(recorded).to_dict(), config.to_dict())
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
