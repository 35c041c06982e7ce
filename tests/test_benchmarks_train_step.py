"""The benchmark of a training step: what its floor is made of, and that what it prints is what it writes."""

import json

import pytest
import timm
import torch
from transformers import BertConfig, BertModel

import Retrieval
from benchmarks import train_step
from benchmarks.plain import plain_encoders
from tests.tiny import tiny_config
from utils.config import config_from_file
from utils.errors import InputError
from utils.typed import write_yaml

SMALL = {"prior_backbone": "mobilenetv3_small_050", "text_encoder": None, "resnet_ckpt": None, "average_decay": 0.9}


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "small.yaml"
    write_yaml(tiny_config(tmp_path, **SMALL).to_dict(), file)
    return file


def test_the_figures_are_printed_written_and_drawn(config, tmp_path, capsys):
    output = tmp_path / "step.json"
    sizes = ["--batch", "2", "--tokens", "5", "--repeats", "1"]
    train_step.main(["--config", str(config), *sizes, "--output", str(output), "--profile"])
    figures, printed = json.loads(output.read_text()), capsys.readouterr().out
    assert figures["ratio_to_floor"] > 0 and figures["ratio_to_plain_floor"] > 0 and figures["peak_mb"] > 100
    assert set(figures["seconds"]) == {"ours", "floor", "floor, plain settings"}
    assert f"ratio_to_floor               {figures['ratio_to_floor']}" in printed
    assert "aten::" in printed and "AdamW.step" in (tmp_path / "step_ours.trace.json").read_text()
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_our_step_is_that_of_a_training(config, monkeypatch):
    started = []
    monkeypatch.setattr(
        train_step, "start_training", lambda *given: started.append(Retrieval.start_training(*given)) or started[0]
    )
    step = train_step.our_step(config_from_file(config, ["batch_size_train=2"]), 5)
    ((_, state),) = started
    weight = state.model.vision_proj.weight
    before = weight.detach().clone()
    step()  # at learning rate 0, as every training's first
    assert torch.equal(weight, before)
    step()
    assert not torch.equal(weight, before) and int(state.average.n_averaged) == 2


def test_the_floor_of_the_released_config_is_timms_and_transformers_encoders():
    with torch.device("meta"):
        floor = plain_encoders(config_from_file(train_step.ROOT / "configs/Retrieval_rsicd.yaml"))
        named = {
            floor.vision: timm.create_model("swin_tiny_patch4_window7_224", num_classes=0),
            floor.prior: timm.create_model("resnet50", num_classes=0),
            floor.text: BertModel(BertConfig(), add_pooling_layer=False),
        }
    for ours, theirs in named.items():
        assert {n: w.shape for n, w in ours.named_parameters()} == {n: w.shape for n, w in theirs.named_parameters()}


def test_a_frozen_prior_of_the_floor_has_no_gradient_and_the_other_encoders_have(config):
    ready = config_from_file(config, ["batch_size_train=2"])
    floor = plain_encoders(ready)
    floor.train(ready)
    floor.step(ready, torch.randn(2, 3, ready.image_res, ready.image_res), torch.ones(2, 5, dtype=torch.long))
    with_gradient = [
        any(weight.grad is not None for weight in network.parameters())
        for network in (floor.vision, floor.text, floor.prior)
    ]
    assert with_gradient == [True, True, False]


def test_growth_is_measured_over_batches_and_lengths(config, monkeypatch, tmp_path):
    monkeypatch.setattr(train_step, "BATCHES", (1, 2))
    monkeypatch.setattr(train_step, "LENGTHS", (4,))
    monkeypatch.setattr(
        train_step,
        "measure",
        lambda config, tokens, repeats, **_: (
            {"ratio_to_floor": 1.0, "peak_mb": config.batch_size_train, "machine": {}},
            {"ours": [1.0], "floor": [tokens]},
        ),
    )
    grown = train_step.grow(train_step.parse(["--config", str(config), "--batch", "2", "--tokens", "4"]))
    assert {kind: [*sizes] for kind, sizes in grown.items()} == {"batch": [1, 2], "tokens": [4]}
    assert grown["batch"][1]["peak_mb"] == 1 and grown["tokens"][4]["seconds"]["floor"] == [4, 4, 4]
    train_step.draw_growth(tmp_path / "grow.png", grown)
    assert (tmp_path / "grow.png").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--batch", "0"], "give 1 or more"),
        (["--tokens", "65"], "positions for 64"),
        (["--override", "no=1"], "unknown key"),
        (["--output", "no/such/file.json"], "there is no folder no/such"),
        (["--output", "figures.txt"], r"ends in \.json"),
    ],
)
def test_mistakes_are_one_line(config, given, said):
    with pytest.raises(InputError, match=said):
        train_step.main(["--config", str(config), *given])
