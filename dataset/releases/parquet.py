"""Data sets as the Hugging Face Hub keeps them: parquet files with the pictures' bytes, read into a listing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from dataset.picture_names import has_picture_suffix
from dataset.releases.listing import ListedPicture, Listing
from dataset.releases.other_layouts import SPLIT_NAMES
from utils.errors import InputError, reason
from utils.files import write_whole

PICTURES = "pictures"  # the folder in --output_dir that the pictures are written to
_CAPTIONS = ("captions", "caption", "text", "sentences")
_ROWS = 64  # read at a time


def read_parquet(release: Path, output_dir: Path) -> Listing:
    """`train-*.parquet`, `valid-*.parquet`, `test-*.parquet` in a folder (or below it), their pictures written out.

    A row has `image: {bytes, path}`, `captions` (or `caption`, a text or a list) and mostly `filename`. Raises
    `InputError` for files that are not such, a row without them, and names that come twice.
    """
    files = sorted(release.rglob("*.parquet")) if release.is_dir() else [release]
    if not files:
        raise InputError(f"{release} holds no parquet file")
    folder = output_dir / PICTURES
    folder.mkdir(exist_ok=True)
    pictures: dict[str, ListedPicture] = {}
    for file in files:
        split = next((SPLIT_NAMES[name] for name in _parts(file) if name in SPLIT_NAMES), None)
        if split is None:
            raise InputError(f"{file} names no split: expected are train-*.parquet, valid-*.parquet, test-*.parquet")
        for number, row in enumerate(_rows(file), 1):
            name, content, captions = _picture(row, f"{file} row {number}")
            if name in pictures:
                raise InputError(f"{file} row {number}: the picture {name!r:.80} is in an earlier row already")
            if not (folder / name).is_file() or (folder / name).read_bytes() != content:
                write_whole(folder / name, content)
            pictures[name] = ListedPicture(name, name, True, split, captions, None)
    return Listing(folder, list(pictures.values()), files)


def _parts(file: Path) -> list[str]:
    """The words of a file's name and of its folder's: `train-00000-of-00001.parquet`, `validation/0000.parquet`."""
    return [*file.stem.replace("_", "-").split("-"), file.parent.name]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{file} is no parquet file, or is cut short: {reason(error):.200}") from None


def _picture(row: dict[str, Any], where: str) -> tuple[str, bytes, tuple[str, ...]]:
    """A row's picture name, the bytes of its file and its captions."""
    image = row.get("image")
    content = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(content, bytes) or not isinstance(image, dict):
        raise InputError(f"{where} has no image with its bytes: give the data set with the pictures inside")
    name = Path(str(row.get("filename") or image.get("path") or "")).name
    if not has_picture_suffix(name):
        raise InputError(f"{where} names its picture {name!r:.80}, which is no name of a picture")
    given: Any = next((row[key] for key in _CAPTIONS if row.get(key)), [])
    captions = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(caption, str) for caption in captions):
        raise InputError(f"{where}: its captions are no texts")
    return name, content, captions
