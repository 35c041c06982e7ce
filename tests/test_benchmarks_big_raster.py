"""The benchmark of reading a big raster, on a small one."""

import numpy as np

from benchmarks import big_raster
from search.files import find_files
from search.items import Tiling
from search.opening import open_picture


def test_the_planted_scene_lies_where_the_benchmark_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(big_raster, "SIDE", 1600)
    monkeypatch.setattr(big_raster, "PLANTED", (600, 700, 512, 512))
    scene = big_raster.drawn_stadium()
    big_raster.make(tmp_path / "big.tif", scene)
    with open_picture(find_files([tmp_path]).files[0], Tiling(1600, whole_up_to=1600)) as opened:
        pixels = opened.read(opened.tiles[0])
    differences = np.abs(pixels[700:1212, 600:1112].astype(int) - scene)
    assert differences.mean() < 8 < np.abs(pixels[100:612, 100:612].astype(int) - scene).mean()  # JPEG lies between
    big_raster.read(tmp_path / "big.tif")
    printed = capsys.readouterr().out
    assert "16 tiles, 0 without data" in printed and "peak memory" in printed
    assert "(384, 768, 512, 512): ((" in printed and "(0, 0, 512, 512)" not in printed
