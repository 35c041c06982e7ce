"""Drawn scenes as tar shards, for the pre-training of the demonstration."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from dataset.drawn.scenes import draw_scenes
from dataset.releases.shard_writer import write_shards
from utils.config_parts import ScenesConfig

NAME = "drawn"  # of the shards: drawn-000000.tar


def draw_shards(scenes: ScenesConfig) -> None:
    """Draw scenes as `draw_scenes` does, and write the training pictures beside them as shards, whole or not at all."""
    sizes = asdict(scenes)
    folder = Path(sizes.pop("folder"))
    draw_scenes(folder, **sizes)
    shards = folder.with_name(f"{folder.name}_shards")
    if shards.exists():
        return
    entries = json.loads((folder / "scenes_train.json").read_text(encoding="utf-8"))
    with TemporaryDirectory(prefix=f".{shards.name}.", dir=folder.resolve().parent) as temporary:
        part = Path(temporary) / shards.name
        part.mkdir()
        write_shards(entries, folder, part, NAME)
        part.rename(shards)
