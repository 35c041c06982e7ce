"""What is wrong in a release: every defect counted, named and handled by a stated rule."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dataset.captions import clean_caption
from dataset.releases.listing import SPLITS, ListedPicture
from dataset.releases.picture_check import UPRIGHT, PictureCheck
from utils.errors import InputError
from utils.files import leads_outside

if TYPE_CHECKING:  # it brings transformers, seconds that only --vocabulary is worth
    from dataset.vocabulary import Vocabulary

MAX_WORDS = 30
CAPTIONS_PER_PICTURE = 5
MISSING_AT_MOST = 0.2  # of the pictures; above it the release is not unpacked in full


class Kind(NamedTuple):
    """A kind of defect: what it is called, what is done about it, and whether its pictures are left out."""

    title: str
    rule: str
    left_out: bool = False


KINDS = {
    "names_outside": Kind("File names that lead outside the folder", "The picture is left out.", left_out=True),
    "names_repeated": Kind(
        "File names that are repeated", "The first entry counts, later ones are left out.", left_out=True
    ),
    "names_other_case": Kind(
        "File names spelled otherwise on the disk", "Kept; the annotation files name the file as it is on the disk."
    ),
    "pictures_missing": Kind(
        "Pictures that are missing",
        f"Left out; more than {MISSING_AT_MOST:.0%} missing or unreadable are an error.",
        left_out=True,
    ),
    "pictures_unreadable": Kind(
        "Pictures that cannot be read",
        f"Left out; more than {MISSING_AT_MOST:.0%} missing or unreadable are an error.",
        left_out=True,
    ),
    "pictures_deep": Kind(
        "Pictures of more than 8 bits a channel",
        "Left out: what range of their values is meant is not known; name it with --deep_pictures, or convert them.",
        left_out=True,
    ),
    "pictures_not_rgb": Kind("Pictures that are not RGB", "Kept; converted to RGB when they are read."),
    "pictures_turned": Kind("Pictures that their EXIF orientation turns", "Kept; turned upright when they are read."),
    "pictures_other_size": Kind(
        "Pictures of another size than most", "Kept; training crops and resizes, evaluation resizes to a square."
    ),
    "captions_none": Kind("Pictures without a caption that has a word", "The picture is left out.", left_out=True),
    "captions_empty": Kind(
        "Captions empty after cleaning, or no valid text",
        "Replaced by the picture's first caption with a word, so that the picture keeps its number of captions.",
    ),
    "captions_repeated": Kind(
        "Captions repeated within a picture", "Kept. Counted after cleaning, each from its second time on."
    ),
    "captions_cut": Kind(
        f"Captions of more than {MAX_WORDS} words", f"Kept in the files; reading keeps the first {MAX_WORDS} words."
    ),
    "captions_characters": Kind(
        "Captions with characters outside the vocabulary",
        "Kept. Counted are the words that the folder of --vocabulary does not know; without one, the characters left "
        "after cleaning that are not ASCII: an English vocabulary may lack them.",
    ),
    "captions_few": Kind(f"Pictures with fewer than {CAPTIONS_PER_PICTURE} captions", "Kept with the captions it has."),
    "classes_of_one": Kind(
        "Classes of a single training picture",
        "Kept. In the affiliation loss such a class's centre is the picture itself.",
    ),
    "classes_untrained": Kind(
        "Classes without a training picture", "Kept; numbered after the classes that training sees."
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, and what exactly. The report shows those of highest `weight` first."""

    image: str
    detail: str
    caption: int | None = None  # its number within the picture, from 1
    label: str | None = None
    weight: float = 0.0


class Defects:
    """The findings of each kind."""

    def __init__(self) -> None:
        self._found: dict[str, list[Finding]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, finding: Finding) -> None:
        """Note a finding of a kind of `KINDS`."""
        self._found[kind].append(finding)

    def __getitem__(self, kind: str) -> list[Finding]:
        """The findings of a kind, sorted by picture."""
        return sorted(self._found[kind], key=lambda f: (f.label or "", f.image, f.caption or 0, f.detail))


def with_files(pictures: Sequence[ListedPicture], defects: Defects) -> list[ListedPicture]:
    """The pictures whose name stands for one file that is found, each file once."""
    kept: list[ListedPicture] = []
    seen: set[str] = set()
    for picture in pictures:
        name = picture.name
        if not picture.found and leads_outside(name):
            defects.add("names_outside", Finding(name, name))
        elif picture.file in seen:
            defects.add("names_repeated", Finding(name, f"again, in the split {picture.split}"))
        else:
            seen.add(picture.file)
            if not picture.found:
                defects.add("pictures_missing", Finding(name, f"listed in the split {picture.split}"))
                continue
            if picture.file != name:
                defects.add("names_other_case", Finding(picture.file, f"listed as {name}"))
            kept.append(picture)
    _check_whole(len(pictures), defects)
    return kept


def readable(
    pictures: Sequence[ListedPicture], checks: Mapping[str, PictureCheck], defects: Defects
) -> list[ListedPicture]:
    """The pictures that training can read; the others, and what is odd in form or size, are noted."""
    sizes = Counter(check.size for check in checks.values() if not check.unreadable)
    common = min(sizes, key=lambda size: (-sizes[size], size), default=(0, 0))
    kept = []
    for picture in pictures:
        file, check = picture.file, checks[picture.file]
        if check.unreadable:
            defects.add("pictures_unreadable", Finding(file, check.unreadable))
            continue
        if check.deep:
            defects.add("pictures_deep", Finding(file, check.form))
            continue
        if check.form:
            defects.add("pictures_not_rgb", Finding(file, check.form))
        if check.orientation != UPRIGHT:
            defects.add("pictures_turned", Finding(file, f"orientation {check.orientation}"))
        if check.size != common:
            (width, height), (usual_width, usual_height) = check.size, common
            detail = f"{width} x {height}, most are {usual_width} x {usual_height}"
            ratio = width * height / (usual_width * usual_height)
            defects.add("pictures_other_size", Finding(file, detail, weight=max(ratio, 1 / ratio)))
        kept.append(picture)
    _check_whole(len(pictures) + len(defects["pictures_missing"]), defects)
    return kept


def with_captions(
    pictures: Sequence[ListedPicture], defects: Defects, vocabulary: "Vocabulary | None" = None
) -> list[ListedPicture]:
    """The pictures that have a caption with a word, captions without one replaced.

    vocabulary: that of the text encoder; without one, what is not ASCII counts as unknown to it.
    """
    kept = []
    for picture in pictures:
        file, cleaned = picture.file, [_words(raw) for raw in picture.captions]
        first = next((raw for raw, words in zip(picture.captions, cleaned, strict=True) if words), None)
        if first is None:
            defects.add("captions_none", Finding(file, f"{len(cleaned)} captions: {[*picture.captions]!r:.120}"))
            continue
        if len(cleaned) < CAPTIONS_PER_PICTURE:
            defects.add("captions_few", Finding(file, f"{len(cleaned)} captions", weight=-len(cleaned)))
        captions = []
        for number, (raw, words) in enumerate(zip(picture.captions, cleaned, strict=True), 1):
            if not words:
                detail = f"{raw!r:.80} became {first!r:.200}"
                defects.add("captions_empty", Finding(file, detail, number))
            captions.append(raw if words else first)
        _check_words(file, cleaned, defects, vocabulary)
        kept.append(picture._replace(captions=tuple(captions)))
    return kept


def _check_words(file: str, cleaned: Sequence[list[str]], defects: Defects, vocabulary: "Vocabulary | None") -> None:
    """Note what is odd in the words of a picture's captions."""
    seen: list[str] = []
    for number, words in enumerate(cleaned, 1):
        if not words:
            continue
        text = " ".join(words[:MAX_WORDS])
        if text in seen:
            repeats = len(seen) + 1 - len(set(seen))
            defects.add("captions_repeated", Finding(file, text, number, weight=repeats))
        seen.append(text)
        if len(words) > MAX_WORDS:
            detail = f"{len(words)} words, without: {' '.join(words[MAX_WORDS:])}"
            defects.add("captions_cut", Finding(file, detail, number, weight=len(words)))
        if vocabulary:
            odd = vocabulary.unknown_words(words)
            named = ", ".join(odd)
        else:
            odd = sorted({sign for word in words for sign in word if not sign.isascii()})
            named = ", ".join(f"{sign} (U+{ord(sign):04X})" for sign in odd)
        if odd:
            defects.add("captions_characters", Finding(file, f"{named} in: {text}", number, weight=len(odd)))


def check_classes(pictures: Sequence[ListedPicture], defects: Defects) -> None:
    """Note the classes that have one training picture, or none."""
    files: defaultdict[str, dict[str, list[str]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    for picture in pictures:
        if picture.label_name is not None:
            files[picture.label_name][picture.split].append(picture.file)
    for label, of_split in files.items():
        train, evaluated = of_split["train"], of_split["val"] + of_split["test"]
        if len(train) == 1:
            also = f", {len(evaluated)} in val and test" if evaluated else ""
            defects.add("classes_of_one", Finding(train[0], f"1 training picture{also}", label=label))
        elif not train:
            detail = f"{len(of_split['val'])} pictures in val, {len(of_split['test'])} in test"
            defects.add("classes_untrained", Finding(evaluated[0], detail, label=label, weight=len(evaluated)))


def _check_whole(listed: int, defects: Defects) -> None:
    """Raise InputError where so much is missing that the release cannot have been unpacked in full."""
    lost = [*defects["pictures_missing"], *defects["pictures_unreadable"]]
    if len(lost) > MISSING_AT_MOST * listed:
        damaged = defects["pictures_unreadable"]
        why = f" ({damaged[0].image!r:.80} cannot be read: {damaged[0].detail})" if damaged else ""
        raise InputError(
            f"{len(lost):,} of {listed:,} pictures are missing or unreadable, {lost[0].image!r:.80} first: "
            f"the release is not unpacked in full, or its pictures are in another folder{why}"
        )


def _words(raw: str) -> list[str]:
    """All words left after cleaning, none where the text is no valid Unicode."""
    try:
        return clean_caption(raw, max_words=len(raw) + 1).split()
    except InputError:
        return []
