"""The paper's numbers and the checkpoints they stand beside."""

import json
from pathlib import Path

import pytest

from study.plan import FIGURES
from study.published import match, read_published
from utils.config import Config, config_from_dict

ROOT = Path(__file__).parents[1]


def config_like(monkeypatch, **changes) -> Config:
    monkeypatch.chdir(ROOT)
    files = {"train_file": ["a.json"], "val_file": "b.json", "test_file": "c.json", "image_root": "d"}
    return config_from_dict(files | changes)


@pytest.mark.parametrize(
    ("changes", "title", "mean"),
    [
        ({"is_baseline": True, "use_swin": False, "patch_size": 16, "use_affil_loss": False}, "VSE1", 31.81),
        ({"is_baseline": True, "use_affil_loss": False, "use_triplet_loss": True}, "VSE2: Swin-T/BERT, trip", 36.13),
        ({"is_baseline": True, "use_affil_loss": False}, "VSE2: Swin-T/BERT, contrastive", 36.53),
        ({"use_tel": True, "use_affil_loss": False}, "VSE2+TEL", 36.74),
        ({"resnet_ckpt": "elsewhere.pth", "batch_size_test": 7}, "PIR", 38.24),
    ],
)
def test_a_config_says_which_row_is_a_checkpoints(monkeypatch, changes, title, mean):
    found = match(config_like(monkeypatch, **changes), "elsewhere/RSITMD_test.json", 452)
    assert found.method.startswith(title) and found.dataset == "rsitmd" and found.figures["r_mean"] == mean
    assert found.note == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"filter_size": 20, "mask_padding": True}, "PIR, contrastive + affiliation' but for filter_size 20, mask_pad"),
        ({"text_config": "configs/config_minilm_l6.json"}, "but for text_config.hidden_size 384"),
        ({"is_baseline": True}, "is_baseline True, use_swin True, use_triplet_loss False, use_affil_loss True"),
        ({"use_affil_loss": False}, "no method"),
    ],
)
def test_a_config_of_no_published_row_gets_no_number(monkeypatch, changes, told):
    found = match(config_like(monkeypatch, **changes), "rsicd_test.json", 1093)
    assert told in found.note and found.figures is None and found.method is None


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"depths": [2, 2, 6, 2], "ckpt": "elsewhere/swin_tiny_patch4_window7_224_22k.pth"}, ""),
        ({"depths": [2, 2, 2, 2]}, "but for vision_config.depths [2, 2, 2, 2]"),
    ],
)
def test_sizes_inside_a_config_are_compared_value_by_value(monkeypatch, sizes, told):
    config = config_like(monkeypatch, vision_config=config_like(monkeypatch).to_dict()["vision_config"] | sizes)
    found = match(config, "rsicd_test.json", 1093)
    assert found.note.endswith(told) and bool(found.figures) == (not told)


def test_a_bert_file_with_more_keys_and_fewer_is_the_same_bert(monkeypatch):
    sizes = config_like(monkeypatch).to_dict()["text_config"]
    sizes = {key: value for key, value in sizes.items() if key != "architectures"} | {"fusion_layer": 6}
    assert match(config_like(monkeypatch, text_config=sizes), "rsicd_test.json", 1093).figures


@pytest.mark.parametrize("file", ["rsicd_mini_test.json", "rsicd_val.json", "ucm_test.json", "full_rsicd/test.json"])
def test_another_test_set_gets_no_number(monkeypatch, file):
    found = match(config_like(monkeypatch), file, 1093)
    assert found.figures is None and "is not named rsicd_test or rsitmd_test" in found.note


def test_released_configs_are_read_as_they_are_and_are_pir(parity, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = config_from_dict(json.loads((parity / "base_config.json").read_text()))
    assert match(config, config.test_file, 452).figures["r_mean"] == 38.24


def test_the_published_means_are_those_of_their_figures_and_the_keys_are_a_configs():
    methods = read_published().methods
    assert len(methods) == 5
    for method in methods:
        assert set(method.config) <= set(Config.__dataclass_fields__)
        for figures in method.figures.values():
            assert list(figures) == list(FIGURES)
            assert figures["r_mean"] == pytest.approx(sum(figures[name] for name in FIGURES[:-1]) / 6, abs=0.006)
