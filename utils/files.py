"""Files: text and JSON read strictly and within limits, files written whole or not at all, and what identifies one."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import InputError

# What Pillow may take a picture's file for. It knows formats that start other programs (PostScript) or hold no picture.
PICTURE_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "GIF")

# Generous limits on what is read at once, in bytes: past them a file is not what it was taken for.
YAML_BYTES = 2**20
JSON_BYTES = 2 * 2**30
PICTURE_BYTES = 2 * 2**30


def write_whole(file: Path, content: bytes) -> None:
    """Write `content` beside `file` and rename: a crash leaves the old file or the new one. Errors: `written_whole`."""
    with written_whole(file) as temporary:
        temporary.write_bytes(content)


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, which takes its place at the end; where that fails, nothing is left of it.

    Raises InputError where it cannot be written: a full disk, a folder of that name.
    """
    temporary = file.with_name(file.name + ".partial")
    try:
        yield temporary
        os.replace(temporary, file)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = ": free some space, then go on (a training with --resume); what was whole before still is"
        raise InputError(f"{file} cannot be written ({error.strerror}){way_out if full else ''}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_bytes(file: str | Path, at_most: int) -> bytes:
    """The bytes of a regular file.

    Raises OSError, whose `strerror` says what is wrong, where it cannot be read, is a pipe, device or folder, is larger
    than `at_most` or has a name that no file can have.
    """
    try:
        found = os.stat(file)
    except ValueError:  # a zero character, half a character
        raise OSError(errno.EINVAL, "no file can have this name", str(file)) from None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    content, size = b"", found.st_size
    if size <= at_most:
        with open(file, "rb") as stream:
            content = stream.read(size + 1)
            if len(content) > size:  # it grows, or tells no size as those of /proc: to the limit
                content += stream.read(at_most - size)
    if max(size, len(content)) > at_most:
        raise OSError(errno.EFBIG, f"it is larger than {at_most:,} bytes", str(file))
    return content


def read_text(file: str | Path, kind: str = "UTF-8 text", at_most: int = JSON_BYTES) -> str:
    """A UTF-8 text, with or without byte order mark; `InputError` where it is missing or otherwise encoded.

    kind: what it should be, for the error to name. at_most: its size in bytes.
    """
    try:
        content = read_bytes(file, at_most)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    return decoded(content, file, kind)


def decoded(content: bytes, file: str | Path, kind: str = "UTF-8 text") -> str:
    """The text of a file's bytes, as `read_text`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = "" if "UTF-8" in kind else "it is not UTF-8 text, "
        raise InputError(f"{file} is not {kind}: {wrong}{_likely_encoding(content)}{error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as in any text file that Python reads


def _likely_encoding(content: bytes) -> str:
    """A hint at what a text that is not UTF-8 may be, for an error."""
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
    """Raise InputError for a pipe, a device or a folder, which reading would wait for, never end or fail on."""
    try:
        regular = stat.S_ISREG(file.stat().st_mode)
    except ValueError:
        raise InputError(f"cannot read {file}: no file can have this name") from None
    if not regular:
        raise InputError(f"cannot read {file}: it is no regular file")


def leads_outside(name: str) -> bool:
    """Whether a path, read from a folder, leaves that folder."""
    normal = os.path.normpath(name)
    return os.path.isabs(normal) or normal.split(os.sep)[0] == os.pardir
