"""Training that starts from a whole model's weights as far as they fit, as the published code's `--checkpoint` does."""

import pytest
import torch

from models import build_model
from models.partial_start import start_from_model
from models.released import released_state_dict
from tests.tiny import VISION, pictures, tiny_model
from utils.checkpoint import read_checkpoint
from utils.errors import InputError


@pytest.fixture(scope="module")
def source(tiny_config):
    return tiny_model(tiny_config())


@pytest.fixture
def fresh(tiny_config):
    torch.manual_seed(0)
    return build_model(tiny_config()).eval()


def test_weights_of_this_very_model_fill_it_whole(source, fresh):
    report = start_from_model(fresh, released_state_dict(source), "a.pth")
    count = len(fresh.state_dict())
    assert report == f"a.pth: {count} of {count} tensors"
    images = pictures(2, 112)
    with torch.no_grad():
        assert torch.equal(fresh.encode_image(images), source.encode_image(images))


def test_the_prior_of_another_backbone_is_filled_whole_too(tiny_config):
    config = tiny_config(prior_backbone="tf_efficientnet_lite0")
    source = tiny_model(config)
    torch.manual_seed(0)
    model = build_model(config)
    count = len(model.state_dict())
    assert start_from_model(model, released_state_dict(source), "a.pth") == f"a.pth: {count} of {count} tensors"
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_x_vlms_layout_is_understood_and_what_is_missing_or_left_over_is_reported(source, fresh):
    state = {
        name.replace("text_encoder.", "text_encoder.bert."): tensor
        for name, tensor in released_state_dict(source).items()
    }
    state |= {"itm_head.0.weight": torch.zeros(2)}
    del state["head_img.bias"]
    report = start_from_model(fresh, state, "xvlm.pth")
    assert "1 not in the file, first vision_instruction.head.bias" in report
    assert "1 left over, first itm_head.0.weight" in report
    ours, theirs = (m.text_encoder.backbone.state_dict() for m in (fresh, source))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_position_tables_of_another_window_are_interpolated(source, tiny_config, fresh):
    other = tiny_model(tiny_config(vision_config=VISION | {"window_size": 5}, image_res=80, filter_size=10))
    report = start_from_model(fresh, released_state_dict(other), "b.pth")
    assert "another shape" not in report and "not in the file" not in report
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert fresh.vision_encoder.backbone.state_dict()[name].shape == (13 * 13, 1)


def test_a_model_without_a_prior_takes_the_rest_of_one_with(source, tiny_config):
    plain = build_model(tiny_config(is_baseline=True))
    report = start_from_model(plain, released_state_dict(source), "pir.pth")
    assert "not in the file" not in report and "left over" in report


@pytest.mark.parametrize("part", ["vision_encoder.", "conv_encoder.", "text_encoder."])
def test_weights_that_fill_less_than_half_of_an_encoder_are_refused_and_change_nothing(source, fresh, part):
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    state = released_state_dict(source)
    names = [name for name in state if name.startswith(part)]
    for name in names[: 2 * len(names) // 3]:
        del state[name]
    with pytest.raises(InputError, match=rf"of {part}\*: less than half"):
        start_from_model(fresh, state, "c.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_wrappers_names_are_understood(tmp_path, key, prefix):
    state = {f"{prefix}{name}": torch.ones(2) for name in ("a.weight", "b.bias")}
    torch.save({key: state} if key else state, tmp_path / "w.pth")
    assert set(read_checkpoint(tmp_path / "w.pth")) == {"a.weight", "b.bias"}
