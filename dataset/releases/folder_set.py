"""One's own pictures: a folder with a CSV or JSON Lines table `image,caption[,label][,split]`, read into a listing."""

import csv
import io
import json
import os
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset.releases.listing import SPLITS, ListedPicture, Listing
from dataset.releases.picture_index import PictureIndex
from utils.errors import InputError, listed
from utils.files import read_text

SEED = 42
TABLES = (".csv", ".tsv", ".jsonl")
_DELIMITERS = (",", ";", "\t")  # that of which the first row has most
_NEEDED, _OPTIONAL = ("image", "caption"), ("label", "split")


class _Row(NamedTuple):
    number: int  # as a spreadsheet or an editor counts, from 1
    image: str
    caption: str
    label: str | None
    split: str | None


def read_folder_set(release: Path, seed: int | None, columns: Mapping[str, str] | None = None) -> Listing:
    """The table in a folder (or the table named) and the pictures it names, relative to the table's folder.

    Several rows with one image are its captions, and so are several columns `caption`, `caption_1`, `caption_2` of one
    row. columns: the table's own names for image, caption, label and split, where they are others.

    Where no row has a split, `seed` (None: 42) draws one: a tenth of
    the pictures each for val and test, a picture with all its captions in one split. It is drawn among the pictures
    that are found; the missing ones, which are left out later, count as train.

    Raises InputError naming the rows that are wrong.
    """
    table = _table(release)
    named = {name: (columns or {}).get(name, name) for name in (*_NEEDED, *_OPTIONAL)}
    rows = _json_rows(table, named) if table.suffix.lower() == ".jsonl" else _csv_rows(table, named)
    pictures = _pictures(table, rows)
    to_draw = rows[0].split is None  # as in all rows, then
    if seed is not None and not to_draw:
        raise InputError(f"{table} has a column split: leave --seed out")
    index = PictureIndex(table.parent)
    files = {image: index.find(image) for image in pictures}
    drawn = drawn_split(_found_images(table, files), SEED if seed is None else seed) if to_draw else {}
    listing = []
    for image, (first, *more) in pictures.items():
        captions = (first.caption, *(row.caption for row in more))
        file, split = files[image], first.split or drawn.get(image, "train")
        name = file if file and os.path.isabs(image) else image
        listing.append(ListedPicture(name, file or image, file is not None, split, captions, first.label))
    return Listing(table.parent, listing, [table])


def _found_images(table: Path, files: dict[str, str | None]) -> list[str]:
    """The images that have a file, one of those that share one; `InputError` where the missing leave too few."""
    missing = [image for image, file in files.items() if file is None]
    images = list({file: image for image, file in reversed(files.items()) if file is not None}.values())
    if missing and len(images) < len(SPLITS):
        raise InputError(
            f"{table}: {len(missing)} of {len(files)} pictures are missing, {missing[0]!r:.80} first: too few are left "
            f"for a split into {', '.join(SPLITS)}"
        )
    return images


def drawn_split(images: Sequence[str], seed: int) -> dict[str, str]:
    """A split of each image, the same whatever their order: a tenth of them val, a tenth test, at least one each."""
    if len(images) < len(SPLITS):
        raise InputError(f"{len(images)} pictures cannot be split into {', '.join(SPLITS)}: at least 3 are needed")
    order = sorted(images)
    random.Random(seed).shuffle(order)
    share = max(1, round(len(order) / 10))
    return {image: ("val", "test")[at // share] if at < 2 * share else "train" for at, image in enumerate(order)}


def _table(release: Path) -> Path:
    if release.suffix.lower() in TABLES and not release.is_dir():
        return release
    try:
        tables = sorted(path for path in release.iterdir() if path.suffix.lower() in TABLES and path.is_file())
    except OSError as error:
        raise InputError(f"cannot list {release}: {error.strerror}") from None
    if len(tables) != 1:
        found = f"{len(tables)} ({', '.join(table.name for table in tables)})" if tables else "none"
        raise InputError(f"{release} must hold one table, CSV or JSON Lines (.jsonl); found {found}: name it instead")
    return tables[0]


def _csv_rows(table: Path, named: Mapping[str, str]) -> list[_Row]:
    text = read_text(table)
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    lines, number, begin = [], 0, 1
    try:
        for number, line in enumerate(reader, 1):
            if line:
                lines.append((number, line))
            begin = reader.line_num + 1
    except csv.Error as error:
        unclosed = "a quote that opens in this row is not closed, or closed before its field ends: "
        raise InputError(f"{table} line {begin} (row {number + 1}) is not CSV: {unclosed}{error}") from None
    if not lines:
        raise InputError(f"{table} is empty: its first row must name the columns image and caption")
    header = [name.strip().lower() for name in lines[0][1]]
    column = {name: named[name].lower() for name in named}
    captions = [at for at, name in enumerate(header) if _is_caption(name, column["caption"])]
    missing = [named[name] for name in _NEEDED if column[name] not in header and not (name == "caption" and captions)]
    twice = sorted({name for name in column.values() if header.count(name) > 1} - {column["caption"]})
    if missing or twice:
        wrong = f"has no column {' and '.join(missing)}" if missing else f"has the column {twice[0]} twice"
        hint = "; say with --columns image=NAME,caption=NAME which they are" if missing else ""
        raise InputError(f"{table} {wrong}: its first row is {delimiter.join(lines[0][1])!r:.80}{hint}")
    uneven = [number for number, line in lines if len(line) != len(header)]
    if uneven:
        raise InputError(
            f"{table}: {_rows(uneven)} not {len(header)} fields as the first row has "
            "(a caption with a comma must stand in quotes)"
        )
    rows = []
    for number, line in lines[1:]:
        values = {name: line[header.index(column[name])] for name in column if column[name] in header}
        # Of several columns, a row may leave some empty; one column is one caption, whatever it holds.
        given = [line[at] for at in captions if len(captions) == 1 or line[at].strip()] or [""]
        rows += [_row(number, values | {"caption": caption}) for caption in given]
    return rows


def _is_caption(header: str, name: str) -> bool:
    """Whether a column holds captions: `caption`, or one of `caption1`, `caption_2`, `caption 3`."""
    return re.fullmatch(rf"{re.escape(name)}(?:[ _-]?[0-9]+)?", header) is not None


def _json_rows(table: Path, named: Mapping[str, str]) -> list[_Row]:
    rows, problems = [], []
    for number, line in enumerate(read_text(table).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{table} row {number} is not JSON, or is cut short: {error}") from None
        if not isinstance(values, dict):
            problems.append(f"row {number} is not a JSON object")
            continue
        values = values | {name: values[other] for name, other in named.items() if other in values}
        if isinstance(values.get("label"), int) and not isinstance(values["label"], bool):
            values["label"] = str(values["label"])
        wrong = [name for name in _NEEDED if not isinstance(values.get(name), str)]
        wrong += [name for name in _OPTIONAL if not isinstance(values.get(name), str | None)]
        if wrong:
            problems.append(f"row {number}: {wrong[0]!r} must be a string, not {values.get(wrong[0])!r:.40}")
            continue
        rows.append(_row(number, values))
    if problems:
        raise InputError(f"{table}: {listed(problems)}")
    return rows


def _row(number: int, values: dict[str, Any]) -> _Row:
    label, split = ((values.get(name) or "").strip() or None for name in _OPTIONAL)
    return _Row(number, values["image"].strip(), values["caption"], label, split)


def _pictures(table: Path, rows: list[_Row]) -> dict[str, list[_Row]]:
    """The rows of each picture, in order of first appearance, once they agree with each other."""
    if not rows:
        raise InputError(f"{table} has no row of a picture")
    nameless = [row.number for row in rows if not row.image]
    if nameless:
        raise InputError(f"{table}: {_rows(nameless)} no image")
    unknown = [f"row {row.number} has {row.split!r:.40}" for row in rows if row.split not in (None, *SPLITS)]
    if unknown:
        raise InputError(f"{table}: a split is one of {', '.join(SPLITS)}: {listed(unknown)}")
    for column in _OPTIONAL:
        without = [row.number for row in rows if getattr(row, column) is None]
        if without and len(without) < len(rows):
            raise InputError(f"{table}: {_rows(without)} no {column}, others have one: give all rows one or none")
    pictures: dict[str, list[_Row]] = {}
    problems = []
    for row in rows:
        of_picture = pictures.setdefault(row.image, [])
        of_picture.append(row)
        for column in _OPTIONAL:
            first, value = getattr(of_picture[0], column), getattr(row, column)
            if value != first:
                numbers = f"{of_picture[0].number} and {row.number}"
                problems.append(f"rows {numbers} give {row.image!r} the {column} {first!r:.40} and {value!r:.40}")
    if problems:
        raise InputError(f"{table}: {listed(problems)}")
    return pictures


def _rows(numbers: list[int], shown: int = 5) -> str:
    """`row 3 has`, or `7 rows (3, 4, 5, 6, 8 and more) have`."""
    if len(numbers) == 1:
        return f"row {numbers[0]} has"
    more = " and more" if len(numbers) > shown else ""
    return f"{len(numbers)} rows ({', '.join(map(str, numbers[:shown]))}{more}) have"


def unlisted(listing: Listing) -> str | None:
    """A line that counts the files that no row names, by suffix; None where there are none."""
    named = {picture.file for picture in listing.pictures} | {source.name for source in listing.sources}
    files = {
        path.relative_to(listing.image_root).as_posix() for path in listing.image_root.rglob("*") if path.is_file()
    }
    counts = Counter(Path(file).suffix.lower() or "without suffix" for file in files - named)
    if not counts:
        return None
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(8))
    return f"the table names none of {sum(counts.values())} files ({kinds}): left out"
