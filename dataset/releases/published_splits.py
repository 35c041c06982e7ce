"""The splits behind the published tables: the release's test split, a list of validation pictures, all else train."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.releases.listing import SPLITS, ListedPicture, Listing
from dataset.releases.published_releases import RELEASES
from utils.errors import InputError
from utils.files import read_text

LISTS = Path(__file__).with_name("splits")


@dataclass(frozen=True)
class PublishedSplit:
    """What a published split must come to."""

    val_list: Path  # names the validation pictures, one a line
    pictures: dict[str, int]  # of each split
    train_captions: int


PUBLISHED = {  # of the other releases, the published split is the release's own
    "rsicd": PublishedSplit(LISTS / "rsicd_val.txt", {"train": 7862, "val": 1966, "test": 1093}, 39310),
    "rsitmd": PublishedSplit(LISTS / "rsitmd_val.txt", {"train": 3435, "val": 856, "test": 452}, 17175),
}


def published_split(dataset: str, listing: Listing) -> Listing:
    """The listing with its pictures in the published split; `InputError` in one line for what is missing of it."""
    if dataset not in PUBLISHED:
        check_published(dataset, listing.pictures)
        return listing
    val_list = PUBLISHED[dataset].val_list
    val = {name.casefold(): name for line in read_text(val_list).splitlines() if (name := line.strip())}
    absent = sorted(set(val) - {picture.name.casefold() for picture in listing.pictures})
    both = [p.name for p in listing.pictures if p.split == "test" and p.name.casefold() in val]
    notes: list[str] = []
    if absent:
        notes.append(
            f"{len(absent):,} of the published validation list are not in the release ({val[absent[0]]} first)"
        )
    if both:
        notes.append(
            f"{len(both):,} of its test pictures are in the published validation list ({both[0]} first), "
            "so its test split is not the published one"
        )
    pictures = []
    for picture in listing.pictures:
        rest = "test" if picture.split == "test" else "train"
        pictures.append(picture._replace(split="val" if picture.name.casefold() in val else rest))
    check_published(dataset, pictures, notes)
    if notes:
        raise InputError(f"no published split of {dataset}: {'; '.join(notes)}")
    return listing._replace(pictures=pictures, sources=[*listing.sources, val_list])


def check_published(dataset: str, pictures: Sequence[ListedPicture], notes: Sequence[str] = ()) -> None:
    """Raise InputError, with the notes, unless every split has its published numbers."""
    if dataset not in PUBLISHED:
        count = RELEASES[dataset].picture_count
        if len(pictures) != count:
            raise InputError(f"no published split of {dataset}: {len(pictures):,} of its {count:,} pictures")
        return
    wanted = PUBLISHED[dataset]
    found = Counter(picture.split for picture in pictures)
    captions = sum(len(picture.captions) for picture in pictures if picture.split == "train")
    if found == wanted.pictures and captions == wanted.train_captions:
        return
    counts = ", ".join(f"{split} {found[split]:,} of {wanted.pictures[split]:,}" for split in SPLITS)
    counts += f" pictures, {captions:,} of {wanted.train_captions:,} training captions"
    raise InputError(f"no published split of {dataset}: {'; '.join([counts, *notes])}")
