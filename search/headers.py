"""What a picture's header says: its size, when and where it was taken."""

import io
import math
import warnings
from datetime import UTC, datetime
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from utils.errors import reason
from utils.files import PICTURE_FORMATS

YEARS = range(1826, 2200)  # of photographs


class Header(NamedTuple):
    """What is known of a picture without its pixels; None where nothing is said, or nonsense."""

    size: tuple[int, int] | None = None  # width and height as stored; of a file that Pillow opens
    unreadable: str = ""  # why Pillow does not
    taken: datetime | None = None  # in UTC where no time zone is named
    point: tuple[float, float] | None = None  # longitude, latitude in degrees
    orientation: int = 1  # how stored pixels become the upright picture, 1 to 8


def read_header(source: str | io.BytesIO) -> Header:
    """The header of a picture's file, EXIF with it."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(source, formats=PICTURE_FORMATS) as image:
            return Header(image.size)._replace(**_exif(image))
    except Exception as error:  # a file of another kind, or a damaged one, raises nearly anything
        return Header(unreadable=reason(error))


def _exif(image: Image.Image) -> dict[str, Any]:
    try:
        tags = image.getexif()
        details, place = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # as above; the picture itself may be whole
        return {}
    base = ExifTags.Base
    original = parsed_time(details.get(base.DateTimeOriginal), details.get(base.OffsetTimeOriginal))
    changed = parsed_time(tags.get(base.DateTime), details.get(base.OffsetTime))
    orientation = tags.get(base.Orientation)
    known = orientation if isinstance(orientation, int) else 1
    return {"taken": original or changed, "point": _point(place), "orientation": known}


def parsed_time(text: object, offset: object = None) -> datetime | None:
    """EXIF's `2024:07:31 12:00:00` and `+02:00` as a time with a zone, UTC where none is named; None for nonsense."""
    try:
        taken = datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    if taken.year not in YEARS:  # 0001 and 9999 are ways to say nothing
        return None
    try:
        return taken.replace(tzinfo=datetime.strptime(str(offset).strip("\0 "), "%z").tzinfo)
    except ValueError:
        return taken.replace(tzinfo=UTC)


def _point(place: dict) -> tuple[float, float] | None:
    gps = ExifTags.GPS
    try:
        latitude = _degrees(place[gps.GPSLatitude], place[gps.GPSLatitudeRef], "NS")
        longitude = _degrees(place[gps.GPSLongitude], place[gps.GPSLongitudeRef], "EW")
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    return (longitude, latitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def _degrees(parts: tuple, side: str, sides: str) -> float:
    """Degrees, minutes and seconds on a side as one number, negative on the second of `sides`; NaN for nonsense."""
    degrees, minutes, seconds = (float(part) for part in parts)
    sign = (1, -1)[sides.index(side.strip("\0 ").upper())]
    value = sign * (degrees + minutes / 60 + seconds / 3600)
    return value if math.isfinite(value) else math.nan
