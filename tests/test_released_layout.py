"""Released names and shapes, and loading by them: all of it or nothing."""

import json
from pathlib import Path

import pytest
import torch

from models import build_model
from models.released import load_released, released_name, released_state_dict
from tests.tiny import FILES, captions, pictures, tiny_model
from utils.config import config_from_dict
from utils.errors import InputError

ROOT = Path(__file__).parents[1]
PUBLISHED = {
    "vision_config": str(ROOT / "configs/config_swinT_224.json"),
    "text_config": str(ROOT / "configs/config_bert.json"),
}


def layout(**values):
    """Released names -> shapes of the model of these values, built without any weights."""
    with torch.device("meta"):
        model = build_model(config_from_dict(FILES | values))
    return {name: list(tensor.shape) for name, tensor in released_state_dict(model).items()}


@pytest.mark.parametrize("size", ("full", "small", "vit"))
def test_names_and_shapes_are_those_of_released_checkpoints(parity, size):
    values = PUBLISHED
    if size != "full":
        values = {key: str(parity / f"{key.removesuffix('_config')}_small.json") for key in PUBLISHED}
    if size == "vit":
        values = values | {"use_swin": False, "patch_size": 16}
    assert layout(**values) == json.loads((parity / f"layout_{size}.json").read_text())


def test_the_published_sizes_have_905_tensors():
    shapes = layout(**PUBLISHED)
    assert len(shapes) == 905
    assert shapes["temp"] == shapes["temp2"] == []
    assert shapes["vision_encoder.layers.3.blocks.1.attn.relative_position_bias_table"] == [169, 24]
    assert shapes["conv_encoder.7.2.bn3.running_mean"] == [2048]
    assert shapes["text_encoder.encoder.layer.11.output.LayerNorm.weight"] == [768]
    assert shapes["img_ca.1.mhatt_cross.linear_merge.weight"] == [512, 512]
    assert shapes["mapping_txt.2.weight"] == [512, 512]


@pytest.mark.parametrize(
    ("ours", "released"),
    (
        ("vision_encoder.backbone.layers.1.downsample.norm.weight", "vision_encoder.layers.0.downsample.norm.weight"),
        ("vision_encoder.backbone.layers.1.blocks.0.mlp.fc1.bias", "vision_encoder.layers.1.blocks.0.mlp.fc1.bias"),
        ("instruction_encoder.backbone.conv1.weight", "conv_encoder.0.weight"),
        ("instruction_encoder.backbone.layer4.2.bn3.running_var", "conv_encoder.7.2.bn3.running_var"),
        ("vision_instruction.self_attention.1.attention.linear_k.bias", "img_sa.1.mhatt.linear_k.bias"),
        ("language_cycle.cross_attention.0.attention.linear_v.weight", "txt_ca.0.mhatt_cross.linear_v.weight"),
        ("language_cycle.self_attention.2.norm1.weight", "txt_sa.2.norm1.weight"),
        ("vision_instruction.mapping.0.weight", "mapping_img.0.weight"),
        ("language_cycle.head.bias", "head_txt.bias"),
        ("text_proj.weight", "text_proj.weight"),
    ),
)
def test_each_kind_of_name_is_mapped(ours, released):
    assert released_name(ours) == released


# ---- loading ----


@pytest.fixture(scope="module")
def filled(tiny_config):
    """A model whose weights are known, and a released state dict of it that nothing shares."""
    model = tiny_model(tiny_config())
    return model, {name: tensor.clone() for name, tensor in released_state_dict(model).items()}


@pytest.fixture(scope="module")
def other(tiny_config):
    """A model of the same sizes and other weights."""
    torch.manual_seed(0)
    return build_model(tiny_config()).eval()


def test_a_state_dict_goes_into_another_model_and_gives_its_embeddings(filled, tiny_config):
    model, state = filled
    torch.manual_seed(1)
    fresh = build_model(tiny_config()).eval()
    images, ids = pictures(2, 112), captions(2, 8)
    with torch.no_grad():
        assert not torch.allclose(fresh.encode_image(images), model.encode_image(images), atol=1e-3)
        count = len(model.state_dict())
        assert load_released(fresh, state) == f"{count} of {count} tensors"
        assert torch.equal(fresh.encode_image(images), model.encode_image(images))
        assert torch.equal(fresh.encode_text(ids), model.encode_text(ids))
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_temperature_the_file_does_not_have_stays_the_configs(filled, tiny_config):
    model = build_model(tiny_config(temp2=0.03))
    state = {name: tensor for name, tensor in filled[1].items() if name != "temp2"}
    assert load_released(model, state).endswith("(temp2 as in the config)")
    assert float(model.temp2.detach()) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    (
        (lambda s: s.pop("head_img.bias"), r"1 missing, first 'head_img\.bias'"),
        (lambda s: s.pop("conv_encoder.1.running_mean"), r"1 missing, first 'conv_encoder\.1\.running_mean'"),
        (lambda s: s.update({"itm_head.weight": torch.zeros(2)}), r"1 unexpected, first 'itm_head\.weight'"),
        (
            lambda s: s.update({"text_proj.weight": torch.zeros(32, 33)}),
            r"1 of another shape, first 'text_proj\.weight' \[32, 33\] for \[32, 32\]",
        ),
        (
            lambda s: (s.clear(), s.update({"text_proj.weight": torch.zeros(1), "a": torch.zeros(1)})),
            "missing.*unexpected.*another shape",
        ),
    ),
    ids=("missing", "missing-buffer", "unexpected", "misshapen", "all-at-once"),
)
def test_a_state_dict_that_does_not_fit_is_refused_and_changes_nothing(filled, other, spoil, complaint):
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    state = dict(filled[1])
    spoil(state)
    with pytest.raises(InputError, match=complaint) as raised:
        load_released(other, state)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_temperatures_of_losses_a_model_lacks_are_left_aside(filled, tiny_config):
    triplet = build_model(tiny_config(use_affil_loss=False, use_triplet_loss=True))
    assert not {"temp", "temp2"} & released_state_dict(triplet).keys()
    load_released(triplet, filled[1])
    assert torch.equal(triplet.text_proj.weight, filled[0].text_proj.weight)


def test_derived_buffers_are_computed_not_loaded(filled, tiny_config):
    state = filled[1]
    derived = [name for name in state if name.endswith(("relative_position_index", "attn_mask"))]
    assert {name.rsplit(".", 1)[-1] for name in derived} == {"relative_position_index", "attn_mask"}
    fresh = build_model(tiny_config()).eval()
    load_released(fresh, state | {name: torch.zeros(1) for name in derived})
    loaded = released_state_dict(fresh)
    assert all(torch.equal(loaded[name], state[name]) for name in derived)
    load_released(fresh, {name: tensor for name, tensor in state.items() if name not in derived})


def test_a_baselines_checkpoint_does_not_fill_a_pir(filled, tiny_config):
    baseline = tiny_model(tiny_config(is_baseline=True))
    with pytest.raises(InputError, match="missing, first 'conv_encoder"):
        load_released(filled[0], released_state_dict(baseline))
    with pytest.raises(InputError, match="unexpected, first 'conv_encoder"):
        load_released(baseline, filled[1])


@pytest.mark.parametrize(
    ("off", "gone"),
    (
        ("use_vir", ("conv_encoder.", "conv_proj.", "img_sa.", "img_ca.", "mapping_img.", "head_img.")),
        ("use_lca", ("txt_sa.", "txt_ca.", "mapping_txt.", "head_txt.")),
    ),
)
def test_what_remains_without_a_module_keeps_its_released_name(filled, tiny_config, off, gone):
    model = tiny_model(tiny_config(**{off: False}))
    whole, state = filled[1], released_state_dict(model)
    assert all(any(name.startswith(part) for name in whole) for part in gone)
    assert state.keys() == {name for name in whole if not name.startswith(gone)}
    load_released(model, {name: tensor for name, tensor in whole.items() if name in state})
    with pytest.raises(InputError, match=f"unexpected, first '({'|'.join(gone)})"):
        load_released(model, whole)


@pytest.mark.parametrize("values", ({"use_tel": True}, {"lca_cycle": False}, {"use_vir": False, "use_lca": False}))
def test_every_choice_of_modules_loads_what_it_wrote(tiny_config, values):
    torch.manual_seed(1)
    written, read = (build_model(tiny_config(**values)).eval() for _ in range(2))
    count = len(read.state_dict())
    state = released_state_dict(written)
    assert load_released(read, state) == f"{count} of {count} tensors"
    images, ids = pictures(2, 112), captions(2, 8)
    with torch.no_grad():
        assert torch.equal(read.encode_image(images), written.encode_image(images))
        assert torch.equal(read.encode_text(ids), written.encode_text(ids))


def test_a_cycle_switched_off_takes_the_same_weights(filled, tiny_config):
    model = build_model(tiny_config(lca_cycle=False))
    load_released(model, filled[1])
    assert released_state_dict(model).keys() == filled[1].keys()
