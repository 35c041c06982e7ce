"""The files of a release: a folder, or an archive unpacked safely; pictures found by name."""

import gzip
import json
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
from typing import IO, Any, NamedTuple, NoReturn

from utils.errors import InputError, reason
from utils.files import file_checksum, leads_outside, read_text

UNPACKED = "release"  # the folder in --output_dir that an archive is unpacked to
_MARKER = ".archive.json"  # in it: which archive it is, {"sha256", "files": {name: bytes}}
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")
# What the readers of a damaged archive raise; ValueError: names and headers that are not as the format has them
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, RuntimeError, ValueError, LookupError),
)


@contextmanager
def release_folder(release: Path, output_dir: Path) -> Iterator[Path]:
    """The release as a folder, or as the table file named: a zip or tar archive is unpacked to `output_dir/release`.

    An archive that holds one folder and nothing else stands for that folder. What an earlier call unpacked is taken
    as it is where all its files are there in full. What this call unpacked is removed again where the block fails,
    and an `InputError` then names the archive instead. Raises `InputError` for what is neither, and for an archive
    that is damaged, too large for the disk, or holds links, names that lead out of it, or nothing but an archive.
    """
    if os.path.isdir(release) or release.suffix.lower() in (".csv", ".jsonl"):
        yield release
        return
    checksum = file_checksum(release)
    place = output_dir / UNPACKED
    if place.exists():
        files = _unpacked_files(place, checksum)
        if files is None:
            raise InputError(f"{place} was not unpacked from {release}: delete it or choose another --output_dir")
        if all(_size(place / name) == size for name, size in files.items()):
            yield _top(place)
            return
        print(f"{place} is not as it was unpacked any more: unpacking {release} again")
    _unpack(release, place, checksum)
    try:
        yield _top(place)
    except InputError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise InputError(str(error).replace(str(place), str(release))) from None
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


class PictureIndex:
    """The regular files under a folder of pictures, found by name whatever its case where that leaves no doubt."""

    def __init__(self, root: Path) -> None:
        """Raise `InputError` for a folder that may not be listed."""
        self.root = root
        self._files: dict[str, list[str]] = {}  # folded path -> paths as they are on disk
        for folder, folders, names in os.walk(root, onerror=_not_listed):
            folders.sort()
            inside = Path(folder).relative_to(root)
            for name in sorted(name for name in names if os.path.isfile(os.path.join(folder, name))):
                file = (inside / name).as_posix()
                self._files.setdefault(_folded(file), []).append(file)

    def find(self, name: str) -> str | None:
        """The path under the folder as it is on disk; None where there is no such file, or several by case alone.

        Raises `InputError` for a name that stands for a folder, a pipe or a device.
        """
        if leads_outside(name):
            return None
        name = os.path.normpath(name)
        found = self._files.get(_folded(name), [])
        path = os.path.join(self.root, name)
        if name in found or os.path.isfile(path):  # the second: below a linked folder
            return name
        if os.path.exists(path):
            raise InputError(f"cannot read the picture {path}: it is no regular file; put the picture in its place")
        return found[0] if len(found) == 1 else None


def _not_listed(error: OSError) -> NoReturn:
    raise InputError(f"cannot list {error.filename}: {error.strerror}") from None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()  # macOS stores accents decomposed


class _Member(NamedTuple):
    name: str
    size: int  # bytes
    is_folder: bool
    is_file: bool
    entry: zipfile.ZipInfo | tarfile.TarInfo


def _unpack(archive: Path, place: Path, checksum: str) -> None:
    """Unpack beside `place`, then put it there."""
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    for stale in place.parent.glob(f".{place.name}.[0-9]*"):  # of runs that were killed
        shutil.rmtree(stale, ignore_errors=True)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        with _opened(archive) as opened:
            listed = list(_members(opened))
            if isinstance(opened, tarfile.TarFile):
                _check_end(opened)
            members = _checked(archive, listed, shutil.disk_usage(beside).free)
            for member in members:
                target = beside / member.name
                if member.is_folder:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with _content(opened, member.entry) as packed, target.open("xb") as written:
                    shutil.copyfileobj(packed, written)
        files = {member.name: _size(beside / member.name) for member in members if not member.is_folder}
        (beside / _MARKER).write_text(json.dumps({"sha256": checksum, "files": files}), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        os.replace(beside, place)
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a decoder's has none
            raise InputError(f"{archive} cannot be unpacked to {place}: {error.strerror}") from None
        raise InputError(f"{archive} cannot be unpacked, it is damaged or cut short: {reason(error)}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _unpacked_files(place: Path, checksum: str) -> dict[str, int] | None:
    """What was unpacked to `place`, sizes by name; None where that was not the archive of this checksum."""
    try:
        marker = json.loads(read_text(place / _MARKER))
        return dict(marker["files"]) if marker["sha256"] == checksum else None
    except (InputError, ValueError, TypeError, LookupError, RecursionError):
        return None


def _size(file: Path) -> int | None:
    """Bytes; None where there is no such file."""
    return file.stat().st_size if file.is_file() else None


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


def _check_end(opened: tarfile.TarFile) -> None:
    """Raise TarError, or what its decoder raises, for a tar that ends otherwise than where its members do.

    tarfile stops both at the blocks of zeros that end a tar and, silently, at a damaged header; it never reads on to
    the checksum that ends a compressed one.
    """
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a header is damaged")
    while opened.fileobj.read(1 << 20):
        pass


def _checked(archive: Path, members: list[_Member], free: int) -> list[_Member]:
    """The members worth unpacking; `InputError` for the first that is unsafe."""
    seen: set[PurePosixPath] = set()
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive} holds {member.name!r:.80}, a path that leads out of it")
        if not (member.is_folder or member.is_file):
            raise InputError(f"{archive} holds {member.name!r:.80}, a link or device: unpack it and give the folder")
        if member.is_file and not member.is_folder:
            if path in seen:
                raise InputError(f"{archive} holds {member.name!r:.80} twice: unpack it and give the folder")
            seen.add(path)
    needed = sum(member.size for member in members)
    if needed > free:
        raise InputError(f"{archive} unpacks to {needed / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB left")
    # A zip made on a Mac carries a shadow of every file
    members = [member for member in members if PurePosixPath(member.name).parts[:1] != ("__MACOSX",)]
    files = [member.name for member in members if not member.is_folder]
    if not files:
        raise InputError(f"{archive} holds no file")
    if all(name.lower().endswith(_ARCHIVES) for name in files):
        raise InputError(f"{archive} holds nothing but the archive {files[0]!r:.80}: unpack it and give the folder")
    return members


def _content(opened: zipfile.ZipFile | tarfile.TarFile, entry: Any) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        return opened.open(entry)
    content = opened.extractfile(entry)
    assert content is not None  # a regular file, as _checked saw
    return content


def _top(place: Path) -> Path:
    inside = [path for path in place.iterdir() if not path.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else place
