"""The picture benchmark: what it writes, and that both forms it compares make the same pictures."""

import json

import pytest
import torch

from benchmarks import pictures
from dataset.pictures import load_picture
from dataset.transforms import evaluation_transform
from models.encoders import normalise
from utils.errors import InputError


def measured(*arguments):
    pictures.main([*map(str, arguments), "--repeats", "2"])


def test_the_ratios_are_printed_and_written(capsys, tmp_path):
    measured("--pictures", 3, "--output", tmp_path / "ratios.json")
    written = json.loads((tmp_path / "ratios.json").read_text())
    named = {"train", "evaluation", "train_cache", "evaluation_cache", "train_shards"}
    assert named <= set(written) and all(written[name] > 0 for name in named) and written["pictures"] == 3
    assert f"{'train':28} {written['train']}" in capsys.readouterr().out
    assert written["milliseconds"].keys() > named and (tmp_path / "ratios.png").exists()


def test_a_ratio_is_the_median_of_those_within_a_round():
    times = {name: [3.0, 5.0, 10.0] for name in ("train_cache", "train_shards", "evaluation", "evaluation_cache")}
    times |= {f"plain {kind}{how}": [6.0, 12.0, 20.0] for kind in ("train", "evaluation") for how in ("", "_alone")}
    times |= {"train": [1.0, 3.0, 4.0], "train_alone": [1.0, 1.0, 1.0], "evaluation_alone": [1.0, 1.0, 1.0]}
    assert pictures.ratios(times) | {"train": 5.0, "evaluation": 2.0, "train_alone": 12.0} == pictures.ratios(times)


def test_it_measures_on_pictures_of_ones_own_too(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(InputError, match="holds no JPEG"):
        measured("--images", folder)
    with pytest.raises(InputError, match="--pictures, --repeats: give 1 or more"):
        measured("--pictures", 0)
    with pytest.raises(InputError, match="no folder"):
        measured("--output", tmp_path / "nowhere" / "ratios.json")
    pictures.drawn(folder, 3)
    measured("--images", folder, "--pictures", 2, "--output", tmp_path / "ratios.json")
    assert json.loads((tmp_path / "ratios.json").read_text())["pictures"] == 2


def test_both_forms_give_the_same_evaluation_picture(tmp_path):
    (file,) = pictures.drawn(tmp_path, 1)
    plain = pictures.plain_evaluation_transform(pictures.SIZE)(pictures.plain_load(file))
    ours = normalise(evaluation_transform(pictures.SIZE)(load_picture(file))[None])[0]
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)
