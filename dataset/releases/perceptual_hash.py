"""Perceptual hashes: pictures that look alike differ in few bits, whatever their file, size or compression."""

import imagehash
import numpy as np
from PIL import Image

BITS = 256
_SIDE = 16  # 16 x 16 bits: with the customary 8 x 8, one beach in ten looks like another
_THUMBNAIL = 64

# An aerial picture has no up: what a copy may have been turned by
TURNS: dict[str, Image.Transpose | None] = {
    "as it is": None,
    "mirrored left to right": Image.Transpose.FLIP_LEFT_RIGHT,
    "mirrored top to bottom": Image.Transpose.FLIP_TOP_BOTTOM,
    "turned by 90 degrees": Image.Transpose.ROTATE_90,
    "turned by 180 degrees": Image.Transpose.ROTATE_180,
    "turned by 270 degrees": Image.Transpose.ROTATE_270,
    "mirrored along the main diagonal": Image.Transpose.TRANSPOSE,
    "mirrored along the other diagonal": Image.Transpose.TRANSVERSE,
}


def turned(image: Image.Image, turn: str) -> Image.Image:
    """The picture turned as named in `TURNS`."""
    operation = TURNS[turn]
    return image if operation is None else image.transpose(operation)


def turned_hashes(image: Image.Image) -> np.ndarray:
    """The 256-bit pHash of a picture in each of its eight turns: uint64 `[8, 4]`."""
    small = image.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    bits = [imagehash.phash(turned(small, turn), hash_size=_SIDE).hash.ravel() for turn in TURNS]
    return np.packbits(np.stack(bits), axis=1).view(np.uint64)


def hash_text(bits: np.ndarray) -> str:
    """A hash `[4]` as 64 hexadecimal digits."""
    return bits.tobytes().hex()


def hash_from_text(text: str) -> np.ndarray:
    """The hash `[4]` that `hash_text` wrote; ValueError for anything else."""
    bits = np.frombuffer(bytes.fromhex(text), np.uint64)
    if len(bits) != BITS // 64:
        raise ValueError
    return bits


def distances(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The bits in which hashes `[N, 4]` and `[M, 4]` differ: uint16 `[N, M]`."""
    total = np.zeros((len(hashes), len(others)), np.uint16)
    for word in range(hashes.shape[1]):
        total += np.bitwise_count(hashes[:, word, None] ^ others[None, :, word])
    return total
