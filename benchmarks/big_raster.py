"""Peak memory and tiles a second of reading a raster of 40,000 x 40,000 pixels, a scene planted in it.

    python benchmarks/big_raster.py FOLDER [--planted FILE]

makes FOLDER/big.tif where it is not there (a GeoTIFF in UTM zone 33, tiled, JPEG inside: synthetic land with the
planted picture, or a drawn stadium, at a known place), then reads every tile as indexing does and prints the peak
memory of the reading process, where the planted scene lies, and which tiles hold its middle.
"""

import argparse
import random
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dataset.drawn.grammar import scene_at  # noqa: E402
from dataset.drawn.pictures import draw_scene  # noqa: E402
from dataset.pictures import load_picture  # noqa: E402
from search.files import find_files  # noqa: E402
from search.georeference import footprints, georeference  # noqa: E402
from search.items import Tiling, Window  # noqa: E402
from search.opening import open_picture  # noqa: E402
from utils.errors import InputError, run_cli  # noqa: E402
from utils.files import written_whole  # noqa: E402
from utils.memory import peak_bytes  # noqa: E402

import rasterio  # noqa: E402  # isort: skip: after search, which says what drivers there are
from rasterio.transform import from_origin  # noqa: E402  # isort: skip

SIDE, STRIP = 40_000, 512  # pixels; rows written at once
PLANTED: Window = (23_456, 12_345, 512, 512)
PLACE = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_500_000, 0.5, 0.5)}  # 20 km of half a metre a pixel


def main() -> None:
    """Make the raster where it is not there, read its tiles, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--planted", type=Path, metavar="FILE", help="a picture to plant (default: a drawn stadium)")
    args = parser.parse_args()
    if not args.folder.is_dir():
        raise InputError(f"{args.folder} is no folder")
    file = args.folder / "big.tif"
    if not file.exists():
        picture = load_picture(args.planted) if args.planted else drawn_stadium()
        maker = get_context("spawn").Process(target=make, args=(file, picture))  # its memory is not the reader's
        maker.start()
        maker.join()
        if maker.exitcode:
            raise InputError(f"{file} could not be made")
    read(file)


def drawn_stadium() -> ndarray:
    """A drawn scene, uint8 `[512, 512, 3]`."""
    scene = next(s for s in (scene_at("test", number, 0) for number in range(1000)) if s.kind == "stadium")
    return np.asarray(draw_scene(scene, random.Random(0), PLANTED[2]))


def make(file: Path, picture: ndarray) -> None:
    """Write the raster, strip by strip."""
    column, row, width, height = PLANTED
    planted = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    form = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", **PLACE}
    packed = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "JPEG", "photometric": "YCBCR"}
    ground, rng = land(), np.random.default_rng(1)  # [3, STRIP, SIDE]
    with written_whole(file) as temporary, rasterio.open(temporary, "w", BIGTIFF="YES", **form, **packed) as opened:
        for top in range(0, SIDE, STRIP):
            rows = min(STRIP, SIDE - top)
            strip = np.roll(ground, rng.integers(SIDE), axis=2)[:, :rows]
            first, last = max(top, row), min(top + rows, row + height)
            if first < last:
                part = planted[first - row : last - row].transpose(2, 0, 1)
                strip[:, first - top : last - top, column : column + width] = part
            opened.write(strip, window=rasterio.windows.Window(0, top, SIDE, rows))


def land() -> ndarray:
    """A strip of green and brown fields, 400 x 256 pixels each, uint8 `[3, STRIP, SIDE]`."""
    rng = np.random.default_rng(0)
    shape = (3, STRIP // 256, SIDE // 400)
    fields = np.stack([rng.integers(low, low + 60, shape[1:], np.uint8) for low in (70, 85, 50)])
    grain = rng.integers(0, 25, (STRIP, SIDE), np.uint8)
    return fields.repeat(256, axis=1).repeat(400, axis=2) + grain


def read(file: Path) -> None:
    """Read all tiles and print what it took."""
    started, pixels, empty, last = time.monotonic(), 0, 0, 0
    column, row, width, height = PLANTED
    middle = (column + width // 2, row + height // 2)
    with open_picture(find_files([file]).files[0], Tiling()) as opened:
        for number, tile in enumerate(opened.tiles, 1):
            values = opened.read(tile)
            empty += values is None
            pixels += 0 if values is None else values.shape[0] * values.shape[1]
            if number * 10 // len(opened.tiles) > last:
                last = number * 10 // len(opened.tiles)
                print(f"{number} of {len(opened.tiles)} tiles, {peak():.0f} MB", flush=True)
        holding = [tile for tile in opened.tiles if inside(middle, tile.window)]
    took = time.monotonic() - started
    with rasterio.open(file) as dataset:
        place = georeference(dataset)
        assert place is not None  # as it was made
        (corners,) = footprints(place, [PLANTED])
    assert corners is not None
    longitude, latitude = np.mean(corners, axis=0)
    print(f"{len(opened.tiles)} tiles, {empty} without data, {pixels / 1e6:.0f} million pixels")
    print(f"{len(opened.tiles) / took:.1f} tiles a second; peak memory {peak():.0f} MB")
    print(f"planted at {PLANTED}, its middle at longitude {longitude:.6f}, latitude {latitude:.6f}, in")
    for tile in holding:
        print(f"  {tile.window}: {tile.footprint}")


def inside(place: tuple[int, int], window: Window) -> bool:
    """Whether a pixel lies in a window."""
    return window[0] <= place[0] < window[0] + window[2] and window[1] <= place[1] < window[1] + window[3]


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return peak_bytes() / 1e6


if __name__ == "__main__":
    run_cli(main)
