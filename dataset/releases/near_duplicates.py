"""Near-duplicates: the same view twice, whatever its file, size, compression, brightness or turn.

Two pictures are near-duplicates where their 256-bit perceptual hashes differ, in one of the eight turns,
- in at most 48 bits, or
- in at most 90 bits, and their pixels agree: 128 x 128 grey thumbnails, registered by phase correlation, have a peak
  of at least 18 standard deviations, and 8 x 8 blocks of them then correlate by at least 0.25 on the mean (or the
  thumbnails differ by at most one grey level on the mean). Pictures that are not at hand, as another data set's may
  be, do not agree.

Measured on the 9,828 pictures of RSICD's published training and validation splits: 11 pairs pass, all of them the same
place, one turned by 180 degrees; 4 are within 48 bits, the farthest is 82 bits apart. Within those 82 bits are also
97 pairs of beaches, stadiums and lawns that only look alike, the nearest at 66; none of them passes. Of 500 pictures
changed on purpose all are found that were saved as JPEG of quality 30, scaled to 256 or to 96 pixels, made 30 %
brighter, grey, turned or mirrored; 99.8 % of those shifted by 2 % of their width, 93 % by 4 %, 1 % by 9 %; 97 % of
those zoomed by 4 %, 16 % by 8 %. Views that only share some of the ground are thus not found: a search of all pairs of
each scene by phase correlation shows 17 more pairs of one place, shifted or at another season.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.pictures import USUAL, PictureRule, load_picture
from dataset.releases.perceptual_hash import TURNS, distances, turned

CANDIDATE_BITS = 90
SURE_BITS = 48
MIN_PEAK = 18.0
MIN_BLOCKS = 0.25

RULE = (
    f"Perceptual hashes of 256 bits differ, in one of eight turns, in at most {SURE_BITS} bits; or in at most "
    f"{CANDIDATE_BITS} and the pixels agree: phase correlation with a peak of at least {MIN_PEAK:g} standard "
    f"deviations, then a mean correlation of blocks of at least {MIN_BLOCKS:g}. All are kept. Views that only share "
    "some of the ground are not found."
)

_SIDE = 128  # pixels of the compared thumbnails
_BLOCKS = 8
_MAX_SHIFT = 24  # pixels of the thumbnail
_ROWS = 512  # hashes compared with all others at once
_CACHED = 2048  # thumbnails of 16 KiB


class Hashed(NamedTuple):
    """Pictures of one data set: files, the folder they are in, hashes `[N, 8 or 1, 4]`, how their pixels are read."""

    files: Sequence[str]
    root: Path
    hashes: np.ndarray
    rule: PictureRule = USUAL


class NearDuplicate(NamedTuple):
    """Two pictures by their positions; `blocks` is None where the hashes alone decide."""

    first: int
    second: int
    distance: int  # bits
    turn: str  # of TURNS: what makes the first look like the second
    blocks: float | None  # mean correlation


def near_duplicates(pictures: Hashed, other: Hashed | None = None) -> list[NearDuplicate]:
    """The near-duplicates among `pictures`, or between them and `other`; nearest first."""
    from utils.logs import progress  # brings torch, which --help has no use for

    target = pictures if other is None else other
    # Kept, as what looks like one picture mostly looks like many
    first_thumbnail = lru_cache(_CACHED)(lambda at: thumbnail(pictures.root / pictures.files[at], pictures.rule))
    second_thumbnail = lru_cache(_CACHED)(lambda at: thumbnail(target.root / target.files[at], target.rule))
    candidates = sorted(_candidates(pictures, target, within=other is None), key=lambda c: (c.distance, *c[:2]))
    found: dict[tuple[int, int], NearDuplicate] = {}
    for candidate in progress(candidates, len(candidates), "comparing look-alikes"):
        pair, turn = candidate[:2], candidate.turn
        if pair in found:
            continue
        first, second = first_thumbnail(pair[0]), second_thumbnail(pair[1])
        blocks = None
        if first is not None and second is not None:
            blocks = agreement(np.asarray(turned(first, turn), np.float32), np.asarray(second, np.float32))
        if blocks is not None:
            found[pair] = candidate._replace(blocks=round(blocks, 2))
        elif candidate.distance <= SURE_BITS:
            found[pair] = candidate
    return list(found.values())


def _candidates(pictures: Hashed, target: Hashed, *, within: bool) -> Iterator[NearDuplicate]:
    """Pairs whose hashes are near in a turn, those `within` one set once, their pixels not compared yet."""
    from utils.logs import progress

    for start in progress(range(0, len(pictures.files), _ROWS), -(-len(pictures.files) // _ROWS), "comparing hashes"):
        skipped = start if within else 0
        for number, turn in enumerate(TURNS):
            bits_apart = distances(pictures.hashes[start : start + _ROWS, number], target.hashes[skipped:, 0])
            for row, column in np.argwhere(bits_apart <= CANDIDATE_BITS).tolist():
                if not within or row + start < column + skipped:
                    yield NearDuplicate(row + start, column + skipped, int(bits_apart[row, column]), turn, None)


def thumbnail(file: Path, rule: PictureRule = USUAL) -> Image.Image | None:
    """The picture as a grey one of 128 x 128; None where it cannot be read."""
    try:
        rgb = Image.fromarray(load_picture(file, rule))
        return rgb.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    except Exception:  # another set's picture may have been removed
        return None


def agreement(first: np.ndarray, second: np.ndarray) -> float | None:
    """The mean correlation of the blocks of two grey thumbnails `[128, 128]` once one is moved onto the other.

    1 where they differ by at most one grey level on the mean; None where they do not agree.
    """
    if np.abs(first - second).mean() <= 1:
        return 1.0
    down, right, peak = registered(first, second)
    if peak < MIN_PEAK or max(abs(down), abs(right)) > _MAX_SHIFT:
        return None
    blocks = _block_correlation(_overlap(first, down, right), _overlap(second, -down, -right))
    return blocks if blocks >= MIN_BLOCKS else None


def registered(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """How far `first` lies below and to the right of `second`, in pixels, and the peak in standard deviations."""
    surface = np.fft.irfft2(_phases(first) * np.conj(_phases(second)), s=first.shape)  # [128, 128]
    spread = float(surface.std())
    if spread == 0:  # a picture of one colour
        return 0, 0, 0.0
    down, right = (int(at) for at in np.unravel_index(surface.argmax(), surface.shape))
    half = _SIDE // 2
    return down - _SIDE * (down > half), right - _SIDE * (right > half), float(surface.max()) / spread


# Fades to the border, where a shift brings in other ground: `[128, 128]`
_FADE = np.sqrt(np.hanning(_SIDE + 2)[1:-1])
_TAPER = (_FADE[:, None] * _FADE).astype(np.float32)
# The weight of each frequency, highest for coarse structure: `[128, 65]`
_RADIUS = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE))
_BAND = np.exp(-((_RADIUS / 0.25) ** 2)).astype(np.float32)


def _phases(picture: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft2((picture - picture.mean()) * _TAPER)  # [128, 65]
    size = np.abs(spectrum)
    floor = 0.1 * size.mean() or 1.0  # a frequency that is hardly there has no phase to trust
    return spectrum / (size + floor) * _BAND


def _overlap(picture: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = picture.shape
    return picture[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]


def _block_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Mean correlation over 8 x 8 blocks, those left out in which both are flat."""
    first, second = _blocks(first), _blocks(second)
    spread = first.std(axis=1), second.std(axis=1)
    counted = (spread[0] >= 1) | (spread[1] >= 1)
    if not counted.any():
        return 0.0
    centred = [blocks - blocks.mean(axis=1, keepdims=True) for blocks in (first, second)]
    covariance = (centred[0] * centred[1]).mean(axis=1)
    return float((covariance / np.maximum(spread[0] * spread[1], 1e-6))[counted].mean())


def _blocks(picture: np.ndarray) -> np.ndarray:
    """A picture cut into its blocks: `[64, pixels]`."""
    height, width = (side // _BLOCKS for side in picture.shape)
    cut = picture[: height * _BLOCKS, : width * _BLOCKS]
    return cut.reshape(_BLOCKS, height, _BLOCKS, width).swapaxes(1, 2).reshape(_BLOCKS * _BLOCKS, -1)
