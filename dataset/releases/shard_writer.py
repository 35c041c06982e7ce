"""Train annotations and their pictures -> webdataset tar shards and their index."""

import json
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset.annotations import PictureFolder
from dataset.captions import clean_caption
from dataset.picture_names import SUFFIXES, has_picture_suffix, suffix
from dataset.shards import FORMAT, read_index
from utils.errors import InputError, listed


def write_shards(
    entries: Sequence[Mapping[str, Any]],
    image_root: Path,
    folder: Path,
    name: str,
    pictures_per_shard: int = 1000,
) -> str:
    """Write train annotation entries and their pictures as shards into `folder`; returns the pattern naming them.

    The pictures are put in an order drawn once, since training shuffles among neighbours only. The same entries give
    the same bytes. Each shard is written under a temporary name and renamed; the index comes last, so that shards
    that are not whole have none. Raises `InputError` for entries that training would refuse, for a file `name.json`
    that exists already, and where writing fails.
    """
    from utils.logs import progress, write_json  # brings torch, which --help has no use for

    samples = _samples(entries, image_root)
    random.Random(0).shuffle(samples)
    index = folder / f"{name}.json"
    lines = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if index.exists():
            raise InputError(f"{index} is there already: write shards to another folder, or give them another name")
        pictures = iter(progress(samples, len(samples), f"writing shards of {name}"))
        for number, first in enumerate(range(0, len(samples), pictures_per_shard)):
            part = samples[first : first + pictures_per_shard]
            file = folder / f"{name}-{number:06d}.tar"
            _write_tar(file, zip(range(first, first + len(part)), pictures, strict=False))
            captions = sum(len(sample["captions"]) for sample in part)
            sizes = {"pictures": len(part), "captions": captions, "bytes": file.stat().st_size}
            lines.append({"file": file.name, **sizes})
        labels = all("label" in sample for sample in samples)
        names = {str(sample.get("label")): sample.get("label_name") for sample in samples}
        named = {"label_names": names} if labels and None not in names.values() else {}
        write_json(index, {"format": FORMAT, "labels": labels, "shards": lines} | named)
    except OSError as error:
        raise InputError(f"cannot write shards to {folder}: {error.strerror}") from None
    return str(folder / f"{name}-{{000000..{len(lines) - 1:06d}}}.tar")


def known_shards(index: Path) -> list[Path]:
    """The index and the shards it knows, none where there is no index.

    Removed in this order, what is left is never taken for whole. Raises `InputError` for another file of that name,
    and for an index that was damaged or edited: what it names may be something else.
    """
    if not index.exists():
        return []
    try:
        names = [shard.file for shard in read_index(index).shards]
    except InputError:
        names = [""]
    if not all(re.fullmatch(rf"{re.escape(index.stem)}-[0-9]{{6,9}}\.tar", name) for name in names):
        raise InputError(
            f"{index} is something other than the index of the shards in its folder: move {index.parent} elsewhere, "
            "or choose another --output_dir"
        )
    return [index, *(index.parent / name for name in names)]


def check_suffixes(images: Iterable[str]) -> None:
    """Raise `InputError` for pictures whose names have no suffix that shards know."""
    problems = [f"{image!r:.80}" for image in images if not has_picture_suffix(image)]
    if problems:
        known = ", ".join(SUFFIXES)
        raise InputError(f"shards hold pictures named {known} alone: {listed(problems)}; leave --shards out")


def _samples(entries: Sequence[Mapping[str, Any]], image_root: Path) -> list[dict[str, Any]]:
    """The entries of each picture together, checked, in order of first appearance; `path` is the picture's file."""
    pictures = PictureFolder(image_root)
    problems: list[str] = []
    samples: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        try:
            clean_caption(entry["caption"])  # raises for a caption that training would refuse
            path, image_id = pictures.path(entry["image"]), entry["image_id"]
            kept = {key: entry[key] for key in ("image", "image_id", "label", "label_name") if key in entry}
            sample = samples.setdefault(image_id, {"path": Path(path), "captions": [], **kept})
            if sample["image"] != entry["image"]:
                raise InputError(f"image_id {image_id} belongs to {sample['image']!r} already")
            sample["captions"].append(entry["caption"])
        except KeyError as missing:
            problems.append(f"entry {number} has no {missing}")
        except InputError as problem:
            problems.append(f"entry {number}: {problem}")
    if problems:
        raise InputError(listed(problems))
    if not samples:
        raise InputError("there is no entry to write shards of")
    check_suffixes(sample["image"] for sample in samples.values())
    return list(samples.values())


def _write_tar(file: Path, numbered: Iterable[tuple[int, dict[str, Any]]]) -> None:
    """One shard; the same samples give the same bytes."""
    from webdataset.writer import TarWriter  # brings torch, which --help has no use for

    temporary = file.with_name(f".{file.name}.partial")
    try:
        with temporary.open("wb") as stream, TarWriter(stream, encoder=False, user="", group="", mtime=0) as tar:
            for number, sample in numbered:
                values = {key: value for key, value in sample.items() if key != "path"}
                content = {"json": json.dumps(values).encode(), suffix(sample["path"]): sample["path"].read_bytes()}
                tar.write({"__key__": f"{number:09d}", **content})
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
