"""Files: text and JSON read strictly, files written whole or not at all, and what identifies one."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from utils.errors import InputError

# What Pillow may take a picture's file for. It knows formats that start other programs (PostScript) or hold no picture.
PICTURE_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "GIF")


def write_whole(file: Path, content: bytes) -> None:
    """Write `content` beside `file` and rename: a crash leaves the old file or the new one.

    Raises InputError where it cannot be written: a full disk, a folder of that name.
    """
    temporary = file.with_name(file.name + ".partial")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror})") from None


def read_text(file: str | Path, kind: str = "UTF-8 text") -> str:
    """A UTF-8 text, with or without byte order mark; `InputError` where it is missing or otherwise encoded.

    kind: what it should be, for the error to name.
    """
    try:
        check_regular(Path(file))
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        wrong = "" if "UTF-8" in kind else "it is not UTF-8 text, "
        raise InputError(f"{file} is not {kind}: {wrong}{_likely_encoding(Path(file))}{error}") from None


def _likely_encoding(file: Path) -> str:
    """A hint at what a text that is not UTF-8 may be, for an error."""
    content = file.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it begins as UTF-16, save it as UTF-8; "
    try:
        content.decode("gbk")
        return "it may be GBK, save it as UTF-8; "
    except UnicodeDecodeError:
        return ""


def read_json(file: str | Path, kind: str = "JSON") -> Any:
    """The content of a JSON file; `InputError` where it is missing, otherwise encoded or cut short.

    kind: what it should be, for the error to name.
    """
    try:
        return json.loads(read_text(file, kind))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not {kind}, or is cut short: {error}") from None


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


def leads_outside(name: str) -> bool:
    """Whether a path, read from a folder, leaves that folder."""
    normal = os.path.normpath(name)
    return os.path.isabs(normal) or normal.split(os.sep)[0] == os.pardir
