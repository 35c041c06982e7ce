"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write `content` beside `file` and rename: a crash leaves the old file or the new one."""
    beside = file.with_name(file.name + ".partial")
    beside.write_bytes(content)
    os.replace(beside, file)
