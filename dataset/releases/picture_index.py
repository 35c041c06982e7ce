"""The pictures of a release, found by name."""

import os
import unicodedata
from pathlib import Path
from typing import NoReturn

from dataset.annotations import inside_root
from utils.errors import InputError
from utils.files import leads_outside


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
        name = inside_root(name, self.root)
        if leads_outside(name):
            return None
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
