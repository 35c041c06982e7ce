"""What a preparation writes: every file whole in a partial folder next to its place, then all put in place."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.errors import InputError


def partial(file: Path) -> Path:
    """Where a file is written before it is put in place."""
    return file.parent / ".partial" / file.name


@contextmanager
def partial_folders(files: Iterable[Path]) -> Iterator[None]:
    """See that nothing is left in the partial folders of `files`, before the block or after it."""
    folders = {partial(file).parent for file in files}
    for folder in folders:  # of a run that was killed
        shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def check_places(files: Iterable[Path]) -> None:
    """Raise InputError for a file that cannot be written because a folder, or a file above it, has its name."""
    for file in files:
        if file.is_dir():
            raise InputError(f"cannot write {file}: a folder has that name; move it or choose another --output_dir")
        if file.parent.exists() and not file.parent.is_dir():
            raise InputError(f"cannot write to {file.parent}: it is a file; move it or choose another --output_dir")


def write_partial(file: Path, text: str) -> None:
    """Write a text to the partial folder; `InputError` where that fails."""
    try:
        partial(file).parent.mkdir(exist_ok=True)
        partial(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from None


def put_in_place(files: Sequence[Path], old: Sequence[Path]) -> None:
    """Remove the `old` files and move each of `files` from its partial folder to its place, in this order.

    The last file vouches for the others: its predecessor goes before anything is replaced and it comes last itself,
    so that a crash in between never looks done. Raises `InputError`.
    """
    check_places([*old, *files])
    file = files[-1]
    try:
        for file in (files[-1], *old):
            file.unlink(missing_ok=True)
        for file in files:
            os.replace(partial(file), file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from None
