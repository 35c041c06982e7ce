"""CLIP towers of which a part is trained: which, that gradients reach all of it, and batch norm of what is fixed."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from models import build_model
from optim import create_optimizer
from tests.processes import run_on_processes
from tests.tiny import FILES
from utils import processes
from utils.config import config_from_dict
from utils.config_parts import OptimizerConfig
from utils.errors import InputError

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
VIT = {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 32}
KINDS = {
    "vit": {"vision_cfg": VIT},
    "resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16, "patch_size": None}},
    "convnext": {
        "vision_cfg": {"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}
    },
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": TEXT | {"width": 64, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        "embed_dim": 64,
    },
}
GROUPS = {"vit": 5, "resnet": 6, "convnext": 11, "siglip": 8}  # of the picture tower, as open_clip counts
PLAIN = {"is_baseline": True, "head": 4, "filter_size": 4}
PIR = {"head": 4, "filter_size": 4, "prior_backbone": "resnet10t", "instru_num": 1, "cycle_num": 1}
PRIORCLIP = {"instruct": "before_blocks", "prior_backbone": "clip:RN50", "prior_width": 32}
EACH = pytest.mark.parametrize("kind", KINDS)


def config_in(folder, kind, **changes):
    """A config of a kind of pair, whose file of sizes is written to `folder`."""
    file = Path(folder) / f"{kind}.json"
    file.write_text(json.dumps({"embed_dim": 32, "text_cfg": TEXT} | KINDS[kind]), encoding="utf-8")
    return config_from_dict(FILES | {"clip_model": str(file), "vision_config": {}} | changes)


@pytest.fixture
def config_of(tmp_path):
    """A config of a kind of pair: `config_of(kind, key=value, ...)`."""
    return partial(config_in, tmp_path)


def losses(model, config):
    """Of a batch of four."""
    torch.manual_seed(processes.rank())
    ids = torch.randint(3, 200, (4, 16))
    ids[:, -1] = 49407  # the end of text
    label = torch.tensor([0, 0, 1, 1])
    return model(torch.rand(4, 3, config.image_res, config.image_res), ids, idx=torch.arange(4), label=label)


def trained(model, prefix=""):
    return {name for name, p in model.named_parameters() if p.requires_grad and name.startswith(prefix)}


@EACH
def test_the_last_groups_of_a_picture_tower_are_trained_as_open_clip_leaves_them(config_of, kind):
    every = trained(build_model(config_of(kind, **PLAIN)), "clip.visual.")
    counts = []
    for groups in range(1, GROUPS[kind] + 1):
        model = build_model(config_of(kind, **PLAIN, vision_trained_stages=groups))
        open_groups = trained(model, "clip.visual.")
        counts.append(len(open_groups))
        if kind != "resnet":  # of which open_clip locks all or nothing
            pair = build_model(config_of(kind, **PLAIN)).clip
            pair.lock_image_tower(unlocked_groups=groups)
            assert open_groups == {f"clip.{name}" for name in trained(pair, "visual.")}
        assert trained(model) - open_groups == trained(build_model(config_of(kind, **PLAIN))) - every
    assert counts == sorted(set(counts)) and counts[-1] == len(every)


def test_the_groups_of_a_clip_resnet_are_its_stem_its_stages_and_its_pooling(config_of):
    tops = []
    for groups in range(1, 7):
        model = build_model(config_of("resnet", **PLAIN, vision_trained_stages=groups))
        tops.append({name.split(".")[2] for name in trained(model, "clip.visual.")})
    stages = [{"attnpool"}, *({f"layer{number}"} for number in (4, 3, 2, 1))]
    stages.append({"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"})
    assert tops == [set().union(*stages[:count]) for count in range(1, 7)]


@pytest.mark.parametrize("kind", ["vit", "siglip"])
def test_the_last_layers_of_a_text_tower_are_trained(config_of, kind):
    for layers in range(1, 6):
        names = trained(build_model(config_of(kind, **PLAIN, text_trained_layers=layers)), "clip.")
        blocks = {name.partition("resblocks.")[2][0] for name in names if "resblocks." in name and "visual" not in name}
        assert blocks == {"0", "1", "2"} - {str(block) for block in range(4 - layers)}
        assert any("ln_final" in name for name in names) == (layers > 1)
        assert any("text_projection" in name for name in names)
        assert any("token_embedding" in name for name in names) == (layers == 5)


@EACH
def test_more_groups_than_a_tower_has_are_one_line(config_of, kind):
    with pytest.raises(InputError, match=f"stages 99: the picture tower has {GROUPS[kind]} groups$"):
        build_model(config_of(kind, **PLAIN, vision_trained_stages=99))
    with pytest.raises(InputError, match=r"text_trained_layers 6: the text tower has 5 groups$"):
        build_model(config_of(kind, **PLAIN, text_trained_layers=6))


@EACH
@pytest.mark.parametrize("modules", [PLAIN, PIR])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"contrastive": "softmax"},
        {"freeze": ["vision"]},
        {"freeze": ["text"]},
        {"vision_trained_stages": 2, "text_trained_layers": 2},
    ],
)
def test_a_gradient_reaches_all_that_is_trained(config_of, kind, modules, changes):
    config = config_of(kind, **modules, **changes)
    model = build_model(config).train()
    losses(model, config)["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert "clip.logit_scale" in trained(model)


@pytest.mark.parametrize("changes", [{}, {"freeze": ["prior", "text"]}, {"pool": "class", "vision_trained_stages": 2}])
def test_a_gradient_reaches_all_that_is_trained_of_a_priorclip(config_of, changes):
    config = config_of("vit", **PRIORCLIP, **changes)
    model = build_model(config).train()
    losses(model, config)["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    ("changes", "kept"), [({}, False), ({"freeze": ["vision"]}, True), ({"vision_fixed_bn": True}, True)]
)
def test_batch_norm_of_a_fixed_tower_keeps_its_statistics(config_of, changes, kept):
    config = config_of("resnet", **PLAIN, **changes)
    model = build_model(config)
    before = model.clip.visual.bn1.running_mean.clone()
    losses(model.train(), config)
    assert torch.equal(model.clip.visual.bn1.running_mean, before) == kept


def parallel_steps(folder, kind, changes):
    """Two steps in parallel; what is trained after them."""
    own = Path(folder) / str(processes.rank())
    own.mkdir()
    config = config_in(own, kind, **changes)
    torch.manual_seed(0)
    model = build_model(config).train()
    parallel = processes.in_parallel(model)
    optimizer = create_optimizer(OptimizerConfig(lr=1e-3), model)
    for _ in range(2):
        optimizer.zero_grad()
        losses(parallel, config)["loss"].backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", ["resnet", "siglip"])
def test_processes_train_a_part_of_a_tower_together(tmp_path, kind):
    changes = PLAIN | {"contrastive": "softmax", "vision_trained_stages": 2, "text_trained_layers": 2}
    one, other = run_on_processes(2, parallel_steps, str(tmp_path), kind, changes)
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
