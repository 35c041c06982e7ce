"""`--cache DIR`: pictures decoded once, without loss, into one file that every worker and process maps.

`pictures.bin` holds uint8 pixels `[H, W, 3]`, one picture after another, each in its own size; `index.jsonl` holds
where each is, its checksum, and the size, date and checksum of the file it was decoded from. Both only grow: a
picture's line follows its pixels, so whatever an interruption cuts off was not in the index yet.
"""

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy import ndarray
from PIL import Image

from dataset.pictures import USUAL, PictureRule, decode_picture, load_picture, read_file
from utils import processes
from utils.errors import InputError
from utils.files import PICTURE_FORMATS, check_regular
from utils.logs import progress, say

PIXELS, INDEX = "pictures.bin", "index.jsonl"
_HEADER = {"pictures": "uint8 [H, W, 3]", "format": 4}  # raised when a file begins to be decoded to other pixels


class _Cached(NamedTuple):
    """A line of the index."""

    image: str  # under image_root
    image_root: str
    file_bytes: int
    file_mtime_ns: int
    file_crc: int
    height: int
    width: int
    offset: int
    crc: int

    @property
    def end(self) -> int:
        return self.offset + 3 * self.height * self.width


class PictureCache:
    """The decoded pictures of a folder, by the path of the picture's file; to be opened before the first is loaded."""

    def __init__(
        self, folder: Path, image_root: str | Path, rule: PictureRule = USUAL, *, skip_bad: bool = False
    ) -> None:
        """rule: by which deep pictures are read, a part of what the cache is. skip_bad: leave out what is damaged."""
        self.folder, self.image_root, self.rule, self.skip_bad = folder, image_root, rule, skip_bad
        self._places: dict[str, tuple[int, int, int]] = {}  # offset, height, width

    def open(self, pictures: Sequence[str]) -> None:
        """Have these pictures at hand, on each process the same; process 0 first makes or completes the cache.

        Raises `InputError` where a picture has changed since it was decoded, the cache is damaged or does not fit.
        """
        if processes.is_main():
            fill_cache(self.folder, self.image_root, pictures, self.rule, skip_bad=self.skip_bad)
        processes.barrier()
        index = _read_index(self.folder, self.rule)
        for picture in pictures:
            cached = index.get(os.path.relpath(picture, self.image_root))
            if cached is None and self.skip_bad:
                continue
            if cached is None:
                raise InputError(f"--cache {self.folder} must be on a disk that all machines share")
            self._places[picture] = cached.offset, cached.height, cached.width

    def load(self, picture: str) -> ndarray:
        """The pixels of a picture, uint8 `[H, W, 3]`, read-only: what `load_picture` gives."""
        if picture not in self._places:
            raise InputError(f"cannot read the picture {picture}: it was damaged when the cache was made")
        offset, height, width = self._places[picture]
        # The system ends a process that reads a mapped file past its end: one cut short since is told before.
        if os.stat(self.folder / PIXELS).st_size < offset + 3 * height * width:
            raise _damaged(self.folder, f"{PIXELS} was cut short while it was read")
        return self._pixels[offset : offset + 3 * height * width].reshape(height, width, 3)

    @cached_property
    def _pixels(self) -> ndarray:
        return _mapped(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        """A process that is not forked maps the file itself, instead of being sent its content."""
        return {name: value for name, value in self.__dict__.items() if name != "_pixels"}


def fill_cache(
    folder: Path, image_root: str | Path, pictures: Sequence[str], rule: PictureRule = USUAL, *, skip_bad: bool = False
) -> None:
    """Decode the pictures that the cache lacks, with progress; check those it has.

    A file of another size than when it was decoded has changed; one of another date, or of that date elsewhere (two
    data sets may have files of one name, size and date), only if its checksum says so.
    """
    path_of = {os.path.relpath(picture, image_root): picture for picture in pictures}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index = _read_index(folder, rule)
        kept = [index[image] for image in path_of if image in index]
        _check_unchanged(folder, kept, path_of, os.path.realpath(image_root))
        _check_pixels(folder, kept)
        if len(kept) < len(path_of):
            with (folder / INDEX).open("ab") as lines:
                _wait_for_lock(lines, folder)
                index = _read_index(folder, rule)  # another run may have added to it meanwhile
                missing = {image: path for image, path in path_of.items() if image not in index}
                _append(folder, lines, index, missing, os.path.realpath(image_root), rule, skip_bad)
    except OSError as error:
        raise InputError(f"--cache {folder} cannot be written ({error.strerror}); free it or name another") from None


def _header(rule: PictureRule) -> dict[str, Any]:
    """The index's first line: what the pixels are, and the rule that made them where it is not the usual one."""
    return _HEADER if rule == USUAL else _HEADER | {"deep_pictures": rule.deep, "bands": rule.bands and [*rule.bands]}


def _read_index(folder: Path, rule: PictureRule) -> dict[str, _Cached]:
    """The whole lines of the index, by picture; a last line cut short is none."""
    file = folder / INDEX
    if not file.exists():
        if (folder / PIXELS).exists():
            raise InputError(f"--cache {folder} holds {PIXELS} without {INDEX}: remove it, to make it anew")
        return {}
    check_regular(file)
    lines = file.read_bytes().split(b"\n")[:-1]
    try:
        header = json.loads(lines[0]) if lines else _header(rule)
        if not isinstance(header, dict) or {key: header.get(key) for key in _HEADER} != _HEADER:
            raise ValueError
        if header != _header(rule):
            raise InputError(
                f"--cache {folder} was made with other deep_pictures or bands than this config's: name another"
            )
        cached = [_Cached(**json.loads(line)) for line in lines[1:]]
        texts, numbers = [entry[:2] for entry in cached], [entry[2:] for entry in cached]
        if not all(type(text) is str for entry in texts for text in entry):
            raise ValueError
        if not all(type(number) is int and 0 <= number < 2**63 for entry in numbers for number in entry):
            raise ValueError
        if not all(entry.height and entry.width for entry in cached):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{file} is no index of this program's: remove {folder}, or name another --cache") from None
    if (folder / PIXELS).exists():
        check_regular(folder / PIXELS)
    size = (folder / PIXELS).stat().st_size if (folder / PIXELS).exists() else 0
    if any(entry.end > size for entry in cached):
        raise _damaged(folder, f"{PIXELS} is cut short or gone")
    return {entry.image: entry for entry in cached}


def _check_unchanged(folder: Path, cached: Sequence[_Cached], path_of: dict[str, str], image_root: str) -> None:
    changed = []
    for entry in cached:
        path = path_of[entry.image]
        found = os.stat(path)
        same_file = (image_root, found.st_mtime_ns) == (entry.image_root, entry.file_mtime_ns)
        if found.st_size != entry.file_bytes or not (same_file or zlib.crc32(read_file(path)) == entry.file_crc):
            changed.append(path)
    if changed:
        raise InputError(
            f"--cache {folder}: {len(changed)} pictures are not those it was made from, {changed[0]} first: "
            "remove it, to make it anew, or name another"
        )


def _check_pixels(folder: Path, cached: Sequence[_Cached]) -> None:
    if not cached:
        return
    pixels = _mapped(folder)
    for entry in progress(cached, len(cached), "checking the cached pictures"):
        if zlib.crc32(pixels[entry.offset : entry.end].data) != entry.crc:
            raise _damaged(folder, f"the pixels of {entry.image} have changed")


def _mapped(folder: Path) -> ndarray:
    """Every pixel, uint8; not as a memmap, whose own slices take microseconds each."""
    return np.memmap(folder / PIXELS, np.uint8, mode="r").view(ndarray)


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(f"--cache {folder} is damaged ({what}): remove it, to make it anew")


def _wait_for_lock(lines: IO[bytes], folder: Path) -> None:
    """Let one run at a time add pictures; the lock ends with the process."""
    try:
        fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another run that fills {folder}")
        fcntl.flock(lines, fcntl.LOCK_EX)


def _append(
    folder: Path,
    lines: IO[bytes],
    index: dict[str, _Cached],
    path_of: dict[str, str],
    image_root: str,
    rule: PictureRule,
    skip_bad: bool,
) -> None:
    """Add pictures behind the last whole one."""
    if not path_of:
        return
    needed = sum(
        _decoded_bytes(path, rule, skip_bad) for path in progress(path_of.values(), len(path_of), "measuring pictures")
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"--cache {folder} needs {_size(needed)} where {_size(free)} are free: name one elsewhere")
    say(f"decoding {len(path_of)} pictures into {folder}: {_size(needed)}, once")
    _drop_cut_line(folder / INDEX, lines, rule)
    end = max((entry.end for entry in index.values()), default=0)
    with (folder / PIXELS).open("ab") as pixels:
        pixels.truncate(end)
        for image, path in progress(path_of.items(), len(path_of), "decoding pictures"):
            found = os.stat(path)
            data = read_file(path)
            try:
                picture = np.ascontiguousarray(decode_picture(data, path, *(() if rule == USUAL else (rule,))))
            except InputError:
                if not skip_bad:
                    raise
                continue
            height, width, _ = picture.shape
            source = found.st_size, found.st_mtime_ns, zlib.crc32(data)
            entry = _Cached(image, image_root, *source, height, width, end, zlib.crc32(picture.data))
            pixels.write(picture.data)
            pixels.flush()
            lines.write(json.dumps(entry._asdict()).encode() + b"\n")
            lines.flush()
            end = entry.end


def _drop_cut_line(file: Path, lines: IO[bytes], rule: PictureRule) -> None:
    """Leave the index at the end of a whole line, the first of which says what it is."""
    content = file.read_bytes()
    lines.truncate(content.rfind(b"\n") + 1)
    if b"\n" not in content:
        lines.write(json.dumps(_header(rule)).encode() + b"\n")
        lines.flush()


def _decoded_bytes(path: str, rule: PictureRule, skip_bad: bool) -> int:
    """How large a picture will be, from its file's header alone."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            return 3 * image.width * image.height
    except Exception:
        try:
            return load_picture(path, rule).nbytes  # says in one line what is wrong with it
        except InputError:
            if not skip_bad:
                raise
            return 0


def _size(count: int) -> str:
    """A number of bytes to read."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
