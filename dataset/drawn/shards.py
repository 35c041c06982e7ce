"""Drawn scenes as tar shards, for the pre-training of the demonstration."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from dataset.drawn.scenes import MARKER, draw_scenes
from dataset.releases.shard_writer import write_shards
from utils.config_parts import ScenesConfig
from utils.errors import InputError

NAME = "drawn"  # of the shards: drawn-000000.tar


def draw_shards(scenes: ScenesConfig) -> None:
    """Draw scenes as `draw_scenes` does, and write the training pictures beside them as shards, whole or not at all.

    Raises InputError where the shards that lie there are of other scenes.
    """
    sizes = asdict(scenes)
    folder = Path(sizes.pop("folder"))
    draw_scenes(folder, **sizes)
    shards = folder.with_name(f"{folder.name}_shards")
    marker = (folder / MARKER).read_bytes()  # what was drawn
    if shards.exists():
        if not (shards / MARKER).is_file() or (shards / MARKER).read_bytes() != marker:
            raise InputError(f"{shards}: holds shards of other scenes than {folder}; delete it")
        return
    entries = json.loads((folder / "scenes_train.json").read_text(encoding="utf-8"))
    with TemporaryDirectory(prefix=f".{shards.name}.", dir=folder.resolve().parent) as temporary:
        part = Path(temporary) / shards.name
        part.mkdir()
        write_shards(entries, folder, part, NAME)
        (part / MARKER).write_bytes(marker)
        part.rename(shards)
