"""Zip and tar archives: the files in them and their bytes, without unpacking."""

import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from utils.errors import InputError, reason

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MEMBER_BYTES = 2**29  # a member is read whole into memory
# A compressed tar is unpacked up to each of its headers, so one that unpacks beyond both is taken for an attack.
_TIMES_UNPACKED, _LEAST_UNPACKED = 200, 2**30


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int  # bytes, unpacked
    problem: str | None  # why it cannot be read


def is_archive(file: str | Path) -> bool:
    """Whether a file is named as an archive, in upper or lower case."""
    return str(file).lower().endswith(ARCHIVES)


def members(archive: str) -> Iterator[Member]:
    """The regular files of an archive in the order in which they lie there; links and devices are left out.

    Raises InputError, which says why, where the archive cannot be read; of a damaged tar what comes before is given.
    """
    try:
        for name, size, encrypted in _zip_files(archive) if _is_zip(archive) else _tar_files(archive):
            too_large = f"it is larger than {MEMBER_BYTES:,} bytes: unpack it" if size > MEMBER_BYTES else None
            yield Member(name, size, "it is encrypted" if encrypted else too_large)
    except InputError:
        raise
    except Exception as error:  # a decoder fed with a damaged archive raises nearly anything
        raise InputError(_why(error)) from None


def read_member(archive: str, name: str) -> bytes:
    """The bytes of an archive's member; `InputError` naming both where they cannot be read.

    Each thread of each process keeps the archive that it read last open, where it stopped: a compressed tar is gone
    through once by whoever asks in the order of `members`, and from its beginning again by who steps back.
    """
    try:
        found = os.stat(archive)
        key = (archive, found.st_mtime_ns, found.st_size, os.getpid())  # a forked process must not share its position
        if _last.reader is None or _last.key != key:
            _last.reader = None  # closed before the next is opened
            _last.key, _last.reader = key, _Zip(archive) if _is_zip(archive) else _Tar(archive)
        return _last.reader.read(name)
    except Exception as error:  # as above
        _last.reader = None
        raise InputError(f"cannot read {name!r} in the archive {archive}: {_why(error)}") from None


class _Zip:
    """A zip that stays open; of members of the same name the first is meant."""

    def __init__(self, archive: str) -> None:
        self.opened = zipfile.ZipFile(archive)
        self.entries = {entry.filename: entry for entry in reversed(self.opened.infolist())}

    def read(self, name: str) -> bytes:
        entry = self.entries[name]
        _check_size(entry.file_size)
        with self.opened.open(entry) as stream:
            return _whole(stream, entry.file_size)


class _Tar:
    """A tar that stays open, at the last header that was asked for; of members of the same name the first is meant."""

    def __init__(self, archive: str) -> None:
        self.opened = tarfile.open(archive)  # noqa: SIM115
        self.entries: dict[str, tarfile.TarInfo] = {}

    def read(self, name: str) -> bytes:
        while name not in self.entries:
            entry = self.opened.next()
            if entry is None:
                raise KeyError(name)
            self.entries.setdefault(entry.name, entry)
        entry = self.entries[name]
        _check_size(entry.size)
        stream = self.opened.extractfile(entry) if entry.isreg() else None
        if stream is None:
            raise InputError("it is no regular file")
        with stream:
            return _whole(stream, entry.size)


def _check_size(size: int) -> None:
    if size > MEMBER_BYTES:
        raise InputError(f"it is larger than {MEMBER_BYTES:,} bytes: unpack it")


def _whole(stream: IO[bytes], size: int) -> bytes:
    """All of a member; whatever the compressed data hold, no more is read than was declared."""
    content = stream.read(size + 1)
    if len(content) != size:
        raise InputError(f"it has not the {size:,} bytes that the archive says")
    return content


class _Last(threading.local):
    key: tuple[str, int, int, int] | None = None
    reader: _Zip | _Tar | None = None


_last = _Last()


def _is_zip(archive: str) -> bool:
    return archive.lower().endswith(".zip")


def _zip_files(archive: str) -> Iterator[tuple[str, int, bool]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            # 0 where the archive was made without Unix modes
            if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
                yield info.filename, info.file_size, bool(info.flag_bits & 1)


def _tar_files(archive: str) -> Iterator[tuple[str, int, bool]]:
    most = max(_LEAST_UNPACKED, _TIMES_UNPACKED * os.stat(archive).st_size)
    with tarfile.open(archive) as opened:
        for info in opened:
            if not info.issparse() and info.offset_data + info.size > most:
                raise InputError(
                    f"the archive {archive} unpacks to more than {_TIMES_UNPACKED} times its size: refused"
                )
            if info.isreg():
                yield info.name, info.size, False
        # tarfile ends both at the zeros that end a tar and, silently, at a damaged header
        stream = opened.fileobj
        assert stream is not None  # of a tar that is open
        stream.seek(opened.offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a header is damaged")


def _why(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, KeyError):
        return "it is not there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it is damaged, cut short or of another kind ({reason(error)})"
