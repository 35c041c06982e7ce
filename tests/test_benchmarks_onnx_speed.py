"""The ONNX benchmark: torch and the graph do the same work, mistakes are one line and come at once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import Export
from benchmarks import onnx_speed
from tests.exports import tiny_run
from utils.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("exported", [True, False], ids=["eight orientations", "once"])
def test_torch_embeds_in_as_many_orientations_as_the_graph(tmp_path, capsys, exported):
    run = tiny_run(tmp_path, average_orientations=not exported)
    given = ["--checkpoint", str(run), "--output_dir", str(tmp_path / "onnx"), "--format", "onnx"]
    Export.main([*given, "--override", f"average_orientations={exported}"])
    numbers = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(numbers.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    # Six different ones: of captions that are the same, rounding alone would say which ranks first.
    said = (["a lake", "two planes"], ["a river beside a road", "trees"], ["a field", "many houses and a bridge"])
    records = [{"image": f"{number}.png", "caption": captions} for number, captions in enumerate(said)]
    (tmp_path / "test.json").write_text(json.dumps(records))
    given = ["--checkpoint", str(run), "--onnx", str(tmp_path / "onnx"), "--images", str(tmp_path)]
    capsys.readouterr()
    onnx_speed.main([*given, "--captions", str(tmp_path / "test.json"), "--batch", "2", "--passes", "1"])
    printed = capsys.readouterr().out
    apart = [float(number) for number in re.findall(r"apart by (\S+);", printed)]
    assert len(apart) == 2 and max(apart) < 1e-4, printed
    assert "3 pictures" in printed and "6 captions" in printed
    means = re.search(r"r_mean (\S+) by torch, (\S+) by ONNX", printed)
    assert means and means[1] == means[2] and 0 < float(means[1]) <= 100
    onnx_speed.main([*given, "--captions", str(tmp_path / "test.json"), "--count", "2", "--passes", "1"])
    assert "r_mean" not in capsys.readouterr().out, "of a part it would be another figure"


@pytest.mark.parametrize("content", ["{}", "[]", '{"image": {"orientations": 3}}'])
def test_settings_that_say_no_orientations_are_one_line(tmp_path, content):
    (tmp_path / "preprocessing.json").write_text(content)
    with pytest.raises(InputError, match="does not say that the graph embeds a picture in 1 orientation or in 8"):
        onnx_speed.orientations_in(tmp_path / "preprocessing.json")


def test_help_comes_without_torch_and_a_mistake_is_one_line(tmp_path):
    command = [sys.executable, "-X", "importtime", "benchmarks/onnx_speed.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == 0 and b"as Export.py took it" in done.stdout and b" torch\n" not in done.stderr
    command = [sys.executable, "benchmarks/onnx_speed.py", "--checkpoint", "x", "--onnx", str(tmp_path)]
    done = subprocess.run([*command, "--images", "x", "--captions", "x"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: cannot read") and done.stderr.count("\n") == 1
