"""report.html: what is wrong in a data set, the worst of each kind with its pictures, in one self-contained file."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dataset.pictures import PictureRule, load_picture
from dataset.releases.defects import Defects, Finding
from dataset.releases.listing import ListedPicture
from dataset.releases.report_json import OtherSet
from utils.files import leads_outside
from utils.pages import page_template

HTML = "report.html"
SHOWN = 12  # of each kind
SHOWN_PAIRS = 24

_THUMBNAIL = 160  # pixels of the longer side


def render(
    report: Mapping[str, Any],
    defects: Defects,
    pictures: Sequence[ListedPicture],
    image_root: Path,
    other: OtherSet | None,
    rule: PictureRule,
) -> str:
    """The page for a report's values: the same values and pictures give the same text."""
    captions = {picture.file: picture.captions for picture in pictures}
    thumbnail = _thumbnails(image_root, rule)
    other_thumbnail = _thumbnails(other.pictures.root, other.pictures.rule) if other else thumbnail

    def half(image: str, split: str, of_other: bool) -> dict[str, Any]:
        return {
            "image": image,
            "split": split,
            "set": other.dataset if other and of_other else report["arguments"]["dataset"],
            "thumbnail": (other_thumbnail if of_other else thumbnail)(image),
            "captions": () if of_other else captions[image],
        }

    def pairs(kind: str) -> dict[str, Any]:
        found = report["near_duplicates"][kind]
        of_other = (False, kind == "across_sets")
        shown = [
            {**pair, "halves": list(map(half, pair["images"], pair["splits"], of_other))}
            for pair in found[:SHOWN_PAIRS]
        ]
        title = f"Near-duplicate pictures {kind.replace('_', ' ')}"
        named = {image for pair in found for image in pair["images"]}
        return {"title": title, "rule": None, "count": len(found), "pictures": len(named), "shown": shown}

    page = page_template(Path(__file__).with_suffix(".html")).render(
        report=report,
        pairs=[pairs(kind) for kind in ("across_splits", "across_sets", "within_a_split")],
        kinds=[{**values, "shown": worst(defects[kind])} for kind, values in report["defects"].items()],
        thumbnail=thumbnail,
    )
    # A name may hold what UTF-8 cannot
    return page.encode(errors="backslashreplace").decode() + "\n"


def worst(findings: Sequence[Finding], shown: int = SHOWN) -> list[Finding]:
    """The findings of highest weight, a picture once."""
    first: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda finding: -finding.weight):
        first.setdefault(finding.image, finding)
    return list(first.values())[:shown]


def _thumbnails(root: Path, rule: PictureRule) -> Callable[[str], str | None]:
    """A function from a file under `root` to a small JPEG of it as a data URI, None where there is none to show."""

    def thumbnail(file: str) -> str | None:
        if leads_outside(file):  # a name in a release must not bring another file into the page
            return None
        try:
            small = Image.fromarray(load_picture(root / file, rule))
        except Exception:  # the report is of damaged pictures too
            return None
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        written = io.BytesIO()
        small.save(written, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()

    return thumbnail
