"""LoRA on a model's towers: what is trained, and what a checkpoint holds."""

import copy
import json
import sys

import pytest
import torch

import Retrieval
from dataset.clip_tokenizer import clip_tokenizer
from models import build_model, load
from models.adapters import adapter_state, add_adapters, load_adapter
from models.released import load_released, released_state_dict
from tests.clip_pairs import PAIRS, clip_config, pair_file
from tests.small_experiment import write_experiment
from utils.config_parts import LoraSettings
from utils.errors import InputError

PIR = {"is_baseline": False, "prior_backbone": "test_convnext", "instru_num": 1, "cycle_num": 1}
BASE = "ab" * 32  # a sha256
SETTINGS = LoraSettings(rank=2, alpha=4)


@pytest.fixture(params=["pir", *PAIRS])
def config(request, tmp_path, tiny_config):
    """Of a PIR, and of PIR on each kind of pair that has linear layers in its blocks."""
    if request.param == "resnet":
        return clip_config(tmp_path, request.param, **PIR, lora={"towers": ["text"]})
    return tiny_config() if request.param == "pir" else clip_config(tmp_path, request.param, **PIR)


def inputs(config):
    torch.manual_seed(1)
    ids = torch.randint(3, 200, (4, 16))
    ids[:, -1] = config.text_config["vocab_size"] - 1  # CLIP's end of text
    return torch.rand(4, 3, config.image_res, config.image_res), ids


def trained(config, settings=SETTINGS, steps=2):
    """A model whose adapters have learnt something."""
    torch.manual_seed(0)
    model = build_model(config)
    start = copy.deepcopy(model)
    add_adapters(model, config.lora or settings)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    images, ids = inputs(config)
    for _ in range(steps):
        losses = model.train()(images, ids, idx=torch.arange(4), label=torch.tensor([0, 0, 1, 1]))
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return start, model.eval()


def test_merged_weights_are_a_plain_checkpoint_with_the_same_embeddings(config):
    start, model = trained(config)
    plain = build_model(config).eval()
    load_released(plain, released_state_dict(model))
    images, ids = inputs(config)
    with torch.no_grad():
        for verb, given in (("encode_image", images), ("encode_text", ids)):
            adapted = getattr(model, verb)(given)
            torch.testing.assert_close(getattr(plain, verb)(given), adapted, atol=1e-5, rtol=0)
            assert (adapted - getattr(start.eval(), verb)(given)).abs().max() > 1e-3
    assert plain.state_dict().keys() == start.state_dict().keys()


def test_what_is_not_an_adapter_is_frozen_in_a_tower_and_trained_elsewhere(config):
    start, model = trained(config, steps=1)
    before = dict(start.named_parameters())
    for name, parameter in model.named_parameters():
        plain = name.replace(".base_layer", "")
        if "lora_" in name:
            assert parameter.requires_grad and plain not in before
        elif name.startswith(("clip.logit", "vision_proj", "language_cycle", "temp")):
            assert parameter.requires_grad
        elif "lora" not in ((config.lora and "lora") or "") and name.startswith(("clip.visual", "text_encoder")):
            assert torch.equal(parameter, before[plain]), name


def test_an_adapter_alone_is_small_and_fills_the_model_of_its_start(config):
    start, model = trained(config)
    state = {name: tensor.clone() for name, tensor in adapter_state(model, BASE).items()}
    assert sum(t.numel() for t in state.values()) < sum(t.numel() for t in model.state_dict().values())
    images, ids = inputs(config)
    line = load_adapter(start, state, config.lora or SETTINGS, BASE, "a.pth")
    assert line == f"a.pth: an adapter, {len(state) - 1} tensors, merged" and not start.adapters
    start.eval()
    with torch.no_grad():
        torch.testing.assert_close(start.encode_image(images), model.encode_image(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(start.encode_text(ids), model.encode_text(ids), atol=1e-5, rtol=0)


def test_a_checkpoint_replaces_the_adapters_of_a_model(config):
    _, model = trained(config)
    merged = released_state_dict(model)
    load_released(model, merged)  # as the best epoch's at the end of a training
    assert not model.adapters and released_state_dict(model).keys() == merged.keys()


def test_an_adapter_of_other_weights_or_settings_is_one_line(tmp_path):
    config = clip_config(tmp_path, "vit", **PIR)
    start, model = trained(config, steps=1)
    state = adapter_state(model, BASE)
    for base, settings, said in (
        ("cd" * 32, SETTINGS, "other weights"),
        (BASE, LoraSettings(rank=3), "another model or 'lora'"),
        (BASE, None, "must have the 'lora'"),
    ):
        with pytest.raises(InputError, match=said):
            load_adapter(copy.deepcopy(start), state, settings, base, "a.pth")


def test_a_rank_over_a_layers_width_is_one_line(tmp_path):
    model = build_model(clip_config(tmp_path, "vit"))
    with pytest.raises(InputError, match=r"lora.rank 65 is over the 64 inputs of a layer in the vision tower$"):
        add_adapters(model, LoraSettings(rank=65))


@pytest.mark.parametrize("targets", [("nowhere",), ("ln_1",)])
def test_targets_that_no_adapter_fits_are_one_line(tmp_path, targets):
    model = build_model(clip_config(tmp_path, "vit"))
    with pytest.raises(InputError, match="no adapter fits the vision tower") as raised:
        add_adapters(model, LoraSettings(targets=targets))
    assert "\n" not in str(raised.value)


def test_an_adapter_alone_is_read_on_the_weights_it_was_trained_on_and_on_no_others(monkeypatch, tmp_path):
    pair = pair_file(tmp_path, "vit")
    torch.manual_seed(3)
    start = build_model(clip_config(tmp_path, "vit")).clip.state_dict()
    torch.save(start, tmp_path / "pair.pt")
    values = {"clip_model": str(pair), "clip_start": str(tmp_path / "pair.pt"), "tokenizer": None, "image_res": 64}
    values |= {"is_baseline": True, "use_affil_loss": False, "embed_dim": 32, "max_tokens": 16}
    lora = {"rank": 2, "checkpoint": "adapter"}
    file = write_experiment(tmp_path, epochs=1, **values, lora=lora, batch_size_train=8, optimizer={"lr": 0.01})

    def retrieval(*arguments):
        monkeypatch.setattr(sys, "argv", ["Retrieval.py", "--device", "cpu", *map(str, arguments)])
        Retrieval.main()

    run = tmp_path / "run"
    retrieval("--config", file, "--output_dir", run)
    assert (run / "checkpoint_best.pth").stat().st_size < (tmp_path / "pair.pt").stat().st_size / 10
    retrieval("--output_dir", tmp_path / "again", "--evaluate", "--checkpoint", run)
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, tmp_path / "again")]
    assert results[0]["r_mean"] == results[1]["r_mean"] and results[1]["weights_sha256"] == results[0]["weights_sha256"]
    embeds = load(run).embed_texts(["a lake"])
    plain = build_model(clip_config(tmp_path, "vit")).eval()
    plain.clip.load_state_dict(start)
    with torch.no_grad():
        ids = torch.tensor([clip_tokenizer()("a lake").input_ids])
        assert abs(embeds - plain.encode_text(ids).numpy()).max() > 1e-3
    torch.save(start | {"visual.proj": start["visual.proj"] + 1}, tmp_path / "pair.pt")
    with pytest.raises(InputError, match="an adapter of other weights"):
        load(run)
    with pytest.raises(InputError, match="keep it merged"):
        retrieval("--config", file, "--output_dir", tmp_path / "new", "--load_ckpt_from", tmp_path / "pair.pt")
