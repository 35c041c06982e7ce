"""Releases in the layouts that several data sets share, read into a listing: NWPU-Captions, Karpathy's JSON, pairs.

Picture files may lie anywhere under the release; they are found by name, in the folder of their class where one name is
in several.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dataset.picture_names import has_picture_suffix
from dataset.releases.listing import ListedPicture, Listing
from utils.errors import InputError, listed
from utils.files import read_json, read_text

SPLIT_NAMES = {"train": "train", "restval": "train", "val": "val", "dev": "val", "valid": "val", "validation": "val"}
SPLIT_NAMES |= {"test": "test"}
_NWPU_CAPTIONS = ("raw", "raw_1", "raw_2", "raw_3", "raw_4")


class _Picture(NamedTuple):
    """A picture as a captions file names it."""

    name: str
    split: str
    captions: tuple[str, ...]
    label_name: str | None


def read_nwpu(folder: Path) -> Listing:
    """NWPU-Captions: `dataset_nwpu.json`, a mapping of classes to lists of pictures with five captions each."""
    file = folder / "dataset_nwpu.json"
    classes = read_json(file, "NWPU-Captions' JSON file of captions")
    if not isinstance(classes, dict) or not all(isinstance(entries, list) for entries in classes.values()):
        raise InputError(f"{file} is not NWPU-Captions' file of captions: it maps no classes to lists of pictures")

    def picture(label_name: str, entry: Any) -> _Picture:
        captions = [entry[key] for key in _NWPU_CAPTIONS if key in entry]
        return _checked(entry.get("filename"), entry.get("split"), captions, label_name)

    numbered = [(f"{name} {number}", name, one) for name, of in classes.items() for number, one in enumerate(of, 1)]
    return _listing(folder, file, {where: partial(picture, name, one) for where, name, one in numbered})


def read_karpathy(folder: Path) -> Listing:
    """Any set in Karpathy's layout: one JSON file `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}`."""
    files = sorted(folder.glob("*.json"))
    if len(files) != 1:
        named = f"{len(files)}: {', '.join(file.name for file in files[:5])}" if files else "none"
        raise InputError(f"{folder} must hold one JSON file of captions; found {named}")
    (file,) = files
    content = read_json(file, "a JSON file of captions")
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise InputError(f'{file} is not in Karpathy\'s layout: it has no list "images"')

    def picture(entry: Any) -> _Picture:
        captions = [sentence["raw"] for sentence in entry["sentences"]]
        name = f"{entry['filepath']}/{entry['filename']}" if entry.get("filepath") else entry.get("filename")
        return _checked(name, entry.get("split"), captions, None)

    return _listing(folder, file, {f"image {n}": partial(picture, one) for n, one in enumerate(images, 1)})


def read_pairs(folder: Path) -> Listing:
    """Pairs as precomputed features come with: `train_caps.txt` and `train_filename.txt`, and so for val and test.

    One caption a line; as many names, or one name for every so many captions.
    """
    pictures: dict[str, _Picture] = {}
    sources = []
    for split in ("train", "val", "dev", "test"):
        captions_file, names_file = folder / f"{split}_caps.txt", folder / f"{split}_filename.txt"
        if not captions_file.exists() and not names_file.exists():
            continue
        captions, names = (read_text(file).rstrip("\n").split("\n") for file in (captions_file, names_file))
        if len(captions) % len(names):
            counts = f"{len(names)} names and {captions_file} {len(captions)} captions"
            raise InputError(f"{names_file} has {counts}: they must be as many, or the same number for each name")
        sources += [captions_file, names_file]
        of_name = len(captions) // len(names)
        for number, caption in enumerate(captions):
            name, part = names[number // of_name].strip(), SPLIT_NAMES[split]
            known = pictures.get(name, _Picture(name, part, (), None))
            if known.split != part:
                raise InputError(f"{names_file} line {number // of_name + 1}: {name!r:.80} is in {known.split} already")
            pictures[name] = known._replace(captions=(*known.captions, caption))
    if not sources:
        raise InputError(f"{folder} holds no train_caps.txt and train_filename.txt")
    return with_files_under(folder, list(pictures.values()), sources)


LAYOUTS: dict[str, Callable[[Path], Listing]] = {"nwpu": read_nwpu, "karpathy": read_karpathy, "pairs": read_pairs}


def _checked(name: Any, split: Any, captions: Sequence[Any], label_name: str | None) -> _Picture:
    """A picture whose fields are of the right kinds; else `InputError`."""
    if not isinstance(name, str) or not name:
        raise InputError(f"filename {name!r:.80} is not the name of a file")
    if not isinstance(split, str) or split not in SPLIT_NAMES:
        raise InputError(f"{name!r:.80} has the split {split!r:.40}, none of {', '.join(SPLIT_NAMES)}")
    if not all(isinstance(caption, str) for caption in captions):
        raise InputError(f"{name!r:.80} has a caption that is no text")
    return _Picture(name, SPLIT_NAMES[split], tuple(captions), label_name)


def _listing(folder: Path, file: Path, readers: Mapping[str, Callable[[], _Picture]]) -> Listing:
    """The listing of what each reader gives, problems named by the place in the file."""
    pictures, problems = [], []
    for where, read in readers.items():
        try:
            pictures.append(read())
        except InputError as problem:
            problems.append(f"{where}: {problem}")
        except (AttributeError, KeyError, TypeError):
            problems.append(f"{where} lacks its file name, split or captions")
    if problems:
        raise InputError(f"{file}: {listed(problems)}")
    if not pictures:
        raise InputError(f"{file} names no picture")
    return with_files_under(folder, pictures, [file])


def with_files_under(folder: Path, pictures: Sequence[_Picture], sources: list[Path]) -> Listing:
    """A listing of pictures whose files are looked for under the folder by name."""
    paths = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if has_picture_suffix(path) and path.is_file():
            paths[path.name.casefold()].append(path.relative_to(folder).as_posix())
    found = []
    for name, split, captions, label_name in pictures:
        options = paths[Path(name).name.casefold()]
        nearer = [path for path in options if f"/{path}".endswith(f"/{name}")]
        if len(nearer) != 1:
            nearer = [path for path in options if Path(path).parent.name == label_name]
        file = options[0] if len(options) == 1 else nearer[0] if len(nearer) == 1 else None
        found.append(ListedPicture(file or name, file or name, file is not None, split, captions, label_name))
    return Listing(folder, found, sources)
