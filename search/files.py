"""The picture files under folders and in archives."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dataset.picture_names import has_picture_suffix, left_out
from search.archives import is_archive, members
from search.items import PictureFile
from utils.errors import InputError, listed, printable
from utils.files import leads_outside

_SHADOWS = "__MACOSX"  # a zip made on a Mac carries a shadow of every file


@dataclass
class Found:
    """What lies under some roots: files in the order of their paths, an archive's members in the order of the archive.

    left_out: a line that counts the files that are no pictures by their names; None where all are.
    problems: (path, reason) of what could not be looked into.
    """

    files: list[PictureFile] = field(default_factory=list)
    left_out: str | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)


def find_files(roots: Sequence[str | Path]) -> Found:
    """The pictures by their names in folders, zip and tar archives, and single pictures; each path once.

    Folders are walked to the bottom, through links too, and archives in them are looked into; hidden files are passed
    over. Raises InputError for a root that is missing or none of these, and where no picture is found at all.
    """
    found = Found()
    paths: set[str] = set()  # of files and archives
    walked: set[tuple[int, int]] = set()  # folders, however they were come to
    others: list[str] = []  # what is no picture by its name
    for root in roots:
        top = os.path.abspath(root)
        if not os.path.lexists(top):
            raise InputError(f"{root} is missing: name a folder, a zip or tar archive or a picture")
        if not _is_text(top):
            raise InputError(f"{printable(top)}: its name is not UTF-8, rename it")
        if not (os.path.isdir(top) or has_picture_suffix(top) or is_archive(top)):
            raise InputError(f"{root} is no folder, and no zip or tar archive or picture by its name")
        for path in _walk(top, walked, found.problems) if os.path.isdir(top) else [top]:
            if path not in paths:
                paths.add(path)
                found.files += _pictures(path, others, found.problems)
    found.files.sort(key=lambda file: file.archive or file.path)  # stable: members stay in their order
    found.left_out = left_out(others)
    if not found.files:
        problems = listed([f"{path}: {reason}" for path, reason in found.problems]) if found.problems else None
        there = "; ".join(filter(None, [found.left_out, problems])) or "there is no file"
        raise InputError(f"no picture is found in {', '.join(map(str, roots))}: {there}")
    return found


def _walk(top: str, walked: set[tuple[int, int]], problems: list[tuple[str, str]]) -> Iterator[str]:
    """The files below a folder that are not hidden; linked folders come last, so that files keep their own paths."""
    folders, links = [top], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            found = os.stat(folder)
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            problems.append((folder, f"cannot be read: {error.strerror}"))
            continue
        if (found.st_dev, found.st_ino) in walked:
            continue
        walked.add((found.st_dev, found.st_ino))
        for entry in inside:
            if _is_hidden(entry.name):
                continue
            if not _is_text(entry.path):
                problems.append((_shown(entry.path), "its name is not UTF-8: rename it"))
            elif not entry.is_dir():
                yield entry.path
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                folders.append(entry.path)


def _pictures(path: str, others: list[str], problems: list[tuple[str, str]]) -> Iterator[PictureFile]:
    """The picture that a file is, or those that an archive holds."""
    if not has_picture_suffix(path) and not is_archive(path):
        others.append(path)
        return
    try:
        found = os.stat(path)
    except OSError as error:
        problems.append((path, f"cannot be read: {error.strerror}"))
        return
    if not stat.S_ISREG(found.st_mode):
        problems.append((path, "it is no regular file"))
    elif has_picture_suffix(path):
        yield PictureFile(path, found.st_size, found.st_mtime_ns)
    else:
        yield from _members(path, found.st_mtime_ns, others, problems)


def _members(archive: str, modified: int, others: list[str], problems: list[tuple[str, str]]) -> Iterator[PictureFile]:
    paths = set()
    try:
        for name, size, problem in members(archive):
            parts = PurePosixPath(name).parts
            path = os.path.join(archive, *(part for part in parts if part != "/"))
            if any(part != ".." and _is_hidden(part) for part in parts):
                continue
            if not has_picture_suffix(name):
                others.append(name)
                continue
            if not _is_text(name):
                problem = "its name is not UTF-8: unpack the archive and rename it"
            elif leads_outside(name):
                problem = "its name leads out of the archive: unpack it and give the folder"
            elif path in paths:
                problem = "it is in the archive twice, the first is taken"
            paths.add(path)
            if problem:
                problems.append((_shown(path), problem))
            else:
                yield PictureFile(path, size, modified, archive, name)
    except InputError as error:
        problems.append((archive, str(error)))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == _SHADOWS


def _is_text(path: str) -> bool:
    """Whether a name can be written down; those that are not UTF-8 cannot."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: str) -> str:
    return path if _is_text(path) else printable(path)
