"""The files of a release: a folder, or an archive unpacked safely; text read strictly, pictures found by name."""

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from utils.errors import InputError

UNPACKED = "release"  # the folder in --output_dir that an archive is unpacked to
_MARKER = ".archive_sha256"  # in it: which archive it is
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


@contextmanager
def release_folder(release: Path, output_dir: Path) -> Iterator[Path]:
    """The release as a folder, or as the table file named: a zip or tar archive is unpacked to `output_dir/release`.

    An archive that holds one folder and nothing else stands for that folder. What this call unpacked is removed
    again where the block fails. Raises `InputError` for what is neither, and for an archive that is damaged, too
    large for the disk, or holds links or names that lead out of it.
    """
    if release.is_dir() or release.suffix.lower() in (".csv", ".jsonl"):
        yield release
        return
    checksum = file_checksum(release)
    place = output_dir / UNPACKED
    if place.exists():
        if not (place / _MARKER).is_file() or read_text(place / _MARKER).strip() != checksum:
            raise InputError(f"{place} was not unpacked from {release}: delete it or choose another --output_dir")
        yield _top(place)
        return
    _unpack(release, place, checksum)
    try:
        yield _top(place)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def read_text(file: Path) -> str:
    """A UTF-8 text, with or without byte order mark; `InputError` where it is missing or otherwise encoded."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text: {error}") from None


def file_checksum(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; `InputError` where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None


class PictureIndex:
    """The files under a folder of pictures, found by name whatever its case where that leaves no doubt."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, list[str]] = {}  # folded path -> paths as they are on disk
        for folder, folders, names in os.walk(root):
            folders.sort()
            inside = Path(folder).relative_to(root)
            for name in sorted(names):
                file = (inside / name).as_posix()
                self._files.setdefault(_folded(file), []).append(file)

    def find(self, name: str) -> str | None:
        """The path under the folder as it is on disk; None where there is no such file, or several by case alone."""
        if leads_outside(name):
            return None
        name = os.path.normpath(name)
        found = self._files.get(_folded(name), [])
        if name in found or os.path.isfile(os.path.join(self.root, name)):  # the second: below a linked folder
            return name
        return found[0] if len(found) == 1 else None


def leads_outside(name: str) -> bool:
    """Whether a path, read from a folder, leaves that folder."""
    normal = os.path.normpath(name)
    return os.path.isabs(normal) or normal.split(os.sep)[0] == os.pardir


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()  # macOS stores accents decomposed


class _Member(NamedTuple):
    name: str
    size: int  # bytes
    is_folder: bool
    is_file: bool
    entry: zipfile.ZipInfo | tarfile.TarInfo


def _unpack(archive: Path, place: Path, checksum: str) -> None:
    """Unpack beside `place`, then rename."""
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        with _opened(archive) as opened:
            members = _checked(archive, list(_members(opened)), shutil.disk_usage(beside).free)
            for member in members:
                target = beside / member.name
                if member.is_folder:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with _content(opened, member.entry) as packed, target.open("xb") as written:
                    shutil.copyfileobj(packed, written)
        (beside / _MARKER).write_text(checksum + "\n", encoding="utf-8")
        os.replace(beside, place)
    except _BROKEN as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{archive} cannot be unpacked, it is damaged or cut short: {reason}") from None
    except OSError as error:
        raise InputError(f"{archive} cannot be unpacked to {place}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _opened(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    try:
        return tarfile.open(archive)  # whatever its compression
    except tarfile.TarError:
        raise InputError(f"{archive} is no folder, zip or tar archive, or is cut short") from None


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    if isinstance(opened, tarfile.TarFile):
        for entry in opened:
            yield _Member(entry.name, entry.size, entry.isdir(), entry.isreg(), entry)
        return
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made without Unix modes
        yield _Member(info.filename, info.file_size, info.is_dir(), kind in (0, stat.S_IFREG), info)


def _checked(archive: Path, members: list[_Member], free: int) -> list[_Member]:
    """The members worth unpacking; `InputError` for the first that is unsafe."""
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive} holds {member.name!r:.80}, a path that leads out of it")
        if not (member.is_folder or member.is_file):
            raise InputError(f"{archive} holds {member.name!r:.80}, a link or device: unpack it and give the folder")
    needed = sum(member.size for member in members)
    if needed > free:
        raise InputError(f"{archive} unpacks to {needed / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB left")
    # A zip made on a Mac carries a shadow of every file
    return [member for member in members if PurePosixPath(member.name).parts[:1] != ("__MACOSX",)]


def _content(opened: zipfile.ZipFile | tarfile.TarFile, entry: Any) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        return opened.open(entry)
    content = opened.extractfile(entry)
    assert content is not None  # a regular file, as _checked saw
    return content


def _top(place: Path) -> Path:
    inside = [path for path in place.iterdir() if not path.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else place
