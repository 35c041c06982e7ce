"""Files written whole or not at all."""

import os
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write `content` beside, then rename, so that a crash leaves the file there was."""
    beside = file.with_name(file.name + ".partial")
    beside.write_bytes(content)
    os.replace(beside, file)
