"""The files of a release: a folder, or a zip or tar archive unpacked safely."""

import gzip
import json
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from utils.errors import InputError, reason
from utils.files import file_checksum, read_json

UNPACKED = "release"  # the folder in --output_dir that an archive is unpacked to
_MARKER = ".archive.json"  # in it: which archive it is, {"sha256", "files": {name: bytes}}
_SHADOWS = "__MACOSX"  # a zip made on a Mac carries a shadow of every file
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
    as it is where all its files are complete. What this call unpacked is removed again where the block fails,
    and an `InputError` then names the archive instead. Raises `InputError` for what is neither, and for an archive
    that is damaged, too large for the disk, or holds links, names that lead out of it, or nothing but an archive.
    """
    if os.path.isdir(release) or release.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"):
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


class _Member(NamedTuple):
    name: str
    size: int  # bytes
    is_folder: bool
    is_file: bool


def _unpack(archive: Path, place: Path, checksum: str) -> None:
    """Unpack to a temporary folder next to `place`, then put it there."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    for stale in place.parent.glob(f".{place.name}.[0-9]*"):  # of runs that were killed
        shutil.rmtree(stale, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        with _opened(archive) as opened:
            _check(archive, _members(opened), shutil.disk_usage(temporary).free)
            if isinstance(opened, tarfile.TarFile):
                opened.extractall(temporary, filter="data")
            else:
                opened.extractall(temporary, members=opened.infolist())  # by the names that were checked
        shutil.rmtree(temporary / _SHADOWS, ignore_errors=True)
        files = {file.relative_to(temporary).as_posix(): _size(file) for file in temporary.rglob("*") if file.is_file()}
        (temporary / _MARKER).write_text(json.dumps({"sha256": checksum, "files": files}), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        os.replace(temporary, place)
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a decoder's has none
            raise InputError(f"{archive} cannot be unpacked to {place}: {error.strerror}") from None
        raise InputError(f"{archive} cannot be unpacked, it is damaged or cut short: {reason(error)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpacked_files(place: Path, checksum: str) -> dict[str, int] | None:
    """What was unpacked to `place`, sizes by name; None where that was not the archive of this checksum."""
    try:
        marker = read_json(place / _MARKER)
        return dict(marker["files"]) if marker["sha256"] == checksum else None
    except (InputError, ValueError, TypeError, LookupError):
        return None


def _size(file: Path) -> int | None:
    """Bytes; None where there is no such file."""
    return file.stat().st_size if file.is_file() else None


def _opened(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        opened = zipfile.ZipFile(archive)
        if not any("/" in info.filename for info in opened.infolist()):
            for info in opened.infolist():  # some programs on Windows write its own separator
                info.filename = info.filename.replace("\\", "/")
        return opened
    try:
        return tarfile.open(archive)  # whatever its compression
    except tarfile.TarError:
        raise InputError(f"{archive} is no folder, zip or tar archive, or is cut short") from None


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> list[_Member]:
    if isinstance(opened, tarfile.TarFile):
        members = [_Member(entry.name, entry.size, entry.isdir(), entry.isreg()) for entry in opened]
        _check_end(opened)
        return members
    plain = (0, stat.S_IFREG)  # 0 where the archive was made without Unix modes
    return [
        _Member(info.filename, info.file_size, info.is_dir(), stat.S_IFMT(info.external_attr >> 16) in plain)
        for info in opened.infolist()
    ]


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


def _check(archive: Path, members: Sequence[_Member], free: int) -> None:
    """Raise `InputError` for what the standard library would unpack in silence: renamed, overwritten, as a link."""
    files: set[PurePosixPath] = set()
    for name, _, is_folder, is_file in members:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive} holds {name!r:.80}, a path that leads out of it")
        if not (is_folder or is_file):
            raise InputError(f"{archive} holds {name!r:.80}, a link or device: unpack it and give the folder")
        if path in files:
            raise InputError(f"{archive} holds {name!r:.80} twice: unpack it and give the folder")
        if not is_folder:
            files.add(path)
    needed = sum(member.size for member in members)
    if needed > free:
        raise InputError(f"{archive} unpacks to {needed / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB left")
    wanted = [str(file) for file in files if file.parts[:1] != (_SHADOWS,)]
    if not wanted:
        raise InputError(f"{archive} holds no file")
    if all(name.lower().endswith(_ARCHIVES) for name in wanted):
        raise InputError(f"{archive} holds nothing but the archive {min(wanted)!r:.80}: unpack it and give the folder")


def _top(place: Path) -> Path:
    inside = [path for path in place.iterdir() if not path.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else place
