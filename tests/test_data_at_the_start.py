"""A run of small size on data with something wrong, from the command line to what is said of it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from dataset.pictures import load_picture
from tests.test_retrieval import experiment, train_here  # noqa: F401  a fixture
from utils.checkpoint import read_checkpoint
from utils.errors import InputError

ONE_EPOCH = ("--override", "schedular.epochs=1", "--override", "captions_per_image=1")


@pytest.fixture
def own_copy(experiment, tmp_path):  # noqa: F811
    """A function that writes the experiment anew with what it is given changed: pictures by file, captions."""

    def write(change_picture=None, change_caption=lambda caption: caption):
        values = yaml.safe_load(experiment.read_text())
        root, folder = Path(values["image_root"]), tmp_path / "data"
        for key in ("train_file", "val_file", "test_file"):
            file = Path(values[key][0] if key == "train_file" else values[key])
            entries = json.loads(file.read_text())
            for entry in entries:
                target = folder / entry["image"]
                target.parent.mkdir(parents=True, exist_ok=True)
                if change_picture:
                    target = change_picture(root / entry["image"], target.with_suffix(".png"), key)
                    entry["image"] = target.relative_to(folder).as_posix()
                elif not target.exists():
                    target.write_bytes((root / entry["image"]).read_bytes())
                if key == "train_file":
                    entry["caption"] = change_caption(entry["caption"])
            (folder / file.name).write_text(json.dumps(entries))
            values[key] = [str(folder / file.name)] if key == "train_file" else str(folder / file.name)
        config = tmp_path / "own.yaml"
        config.write_text(yaml.safe_dump(values | {"image_root": str(folder)}))
        return config

    return write


def test_a_file_that_is_no_picture_ends_the_run_before_training(own_copy, monkeypatch, tmp_path):
    config = own_copy()
    broken = sorted((tmp_path / "data").rglob("*train*.jpg") or (tmp_path / "data").rglob("*.jpg"))[0]
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"1 problem: cannot read the picture .*{broken.name}"):
        train_here(monkeypatch, config, tmp_path / "out", *ONE_EPOCH)
    assert not (tmp_path / "out/log.txt").exists()


def test_with_skip_the_run_ends_well_and_lists_it(own_copy, monkeypatch, tmp_path, capsys):
    config = own_copy()
    trained = json.loads(next((tmp_path / "data").glob("*train*.json")).read_text())[0]["image"]
    picture = tmp_path / "data" / trained
    picture.write_bytes(picture.read_bytes()[:-400])
    skip = (*ONE_EPOCH, "--override", "on_bad_picture=skip")
    train_here(monkeypatch, config, tmp_path / "out", *skip)
    said = capsys.readouterr().out
    assert "warning: 1 training pictures could not be read; others were taken in their place:" in said
    assert str(picture) in said and (tmp_path / "out/result.json").exists()


def test_captions_that_the_vocabulary_does_not_know_end_the_run_before_training(own_copy, monkeypatch, tmp_path):
    config = own_copy(change_caption=lambda caption: "绿色的公园")
    with pytest.raises(InputError, match="the vocabulary knows no word of 1 captions, '绿色的公园' of the training"):
        train_here(monkeypatch, config, tmp_path / "out", *ONE_EPOCH)
    assert not (tmp_path / "out/log.txt").exists()


def test_words_that_the_vocabulary_does_not_know_are_said_once(own_copy, monkeypatch, tmp_path, capsys):
    config = own_copy(change_caption=lambda caption: f"{caption} 公园")
    train_here(monkeypatch, config, tmp_path / "out", *ONE_EPOCH)
    assert capsys.readouterr().out.count("warning: the vocabulary does not know") == 1


def test_16_bit_pictures_train_as_their_8_bit_values_do(own_copy, monkeypatch, tmp_path):
    def write(kind):
        def change(source, target, key):
            if not target.exists():
                pixels = load_picture(source)[:, :, ::-1]
                cv2.imwrite(str(target), pixels.astype(np.uint16) * 40 if kind == "deep" else pixels)
            return target

        return change

    weights = []
    for kind in ("usual", "deep"):
        config = own_copy(write(kind))
        if kind == "deep":
            with pytest.raises(InputError, match=r"more than 8 bits a channel: .* or set deep_pictures"):
                train_here(monkeypatch, config, tmp_path / "refused", *ONE_EPOCH)
        rule = ("--override", "deep_pictures=divide 40") if kind == "deep" else ()
        train_here(monkeypatch, config, tmp_path / kind, *ONE_EPOCH, *rule)
        weights.append(read_checkpoint(tmp_path / kind / "checkpoint_best.pth"))
        for file in (tmp_path / "data").rglob("*.png"):
            file.unlink()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    figures = [json.loads((tmp_path / kind / "result.json").read_text())["r_mean"] for kind in ("usual", "deep")]
    assert figures[0] == figures[1]
