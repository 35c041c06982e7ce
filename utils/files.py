"""Files that are there whole or not at all, and what identifies one."""

import hashlib
import os
import stat
from pathlib import Path

from utils.errors import InputError


def write_whole(file: Path, content: bytes) -> None:
    """Write `content` beside `file` and rename: a crash leaves the old file or the new one.

    Raises InputError where it cannot be written: a full disk, a folder of that name.
    """
    beside = file.with_name(file.name + ".partial")
    try:
        beside.write_bytes(content)
        os.replace(beside, file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror})") from None


def file_checksum(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; `InputError` where it cannot be read."""
    try:
        check_regular(file)
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


def check_regular(file: Path) -> None:
    """Raise InputError for a pipe or a folder, which reading would wait for or fail on."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise InputError(f"cannot read {file}: it is no regular file")
