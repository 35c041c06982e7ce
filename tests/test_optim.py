"""Parameter groups, AdamW's settings, warm-up and decay."""

import pytest
import torch
from torch import nn

from models import build_model
from models.released import released_name
from optim import create_optimizer
from scheduler import create_scheduler
from tests.clip_pairs import clip_config
from utils.config_parts import OptimizerConfig, SchedularConfig


@pytest.fixture(scope="module")
def model(tiny_config):
    return build_model(tiny_config())


def groups_by_name(model, **changes):
    """Each group's weight decay and learning rate, and the released names of its parameters."""
    names = {id(p): released_name(n) for n, p in model.named_parameters()}
    optimizer = create_optimizer(OptimizerConfig(**changes), model)
    return [(g["weight_decay"], g["lr"], {names[id(p)] for p in g["params"]}) for g in optimizer.param_groups]


def test_four_groups_and_adamw_as_released(model):
    optimizer = create_optimizer(OptimizerConfig(), model)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(g["weight_decay"], g["lr"]) for g in optimizer.param_groups] == [
        (0.01, 6e-5),
        (0.0, 6e-5),
        (0.01, 1.2e-4),
        (0.0, 1.2e-4),
    ]
    assert all(g["betas"] == (0.9, 0.98) and g["eps"] == 1e-8 for g in optimizer.param_groups)


def test_weight_decay_goes_by_name_as_released(model):
    (_, _, decayed), (_, _, undecayed), *multiplied = groups_by_name(model)
    block, bert = "vision_encoder.layers.0.blocks.0", "text_encoder.encoder.layer.0"
    assert undecayed >= {
        "text_proj.bias",
        f"{block}.attn.relative_position_bias_table",
        f"{block}.norm1.weight",
        "vision_encoder.patch_embed.norm.weight",
        f"{bert}.output.LayerNorm.weight",
        "text_encoder.embeddings.LayerNorm.bias",
        "img_sa.0.norm1.weight",
        "txt_ca.1.norm2.bias",
    }
    assert decayed >= {
        "temp",
        "temp2",
        "text_proj.weight",
        f"{block}.attn.qkv.weight",
        f"{bert}.attention.self.key.weight",
        "text_encoder.embeddings.word_embeddings.weight",
        "mapping_img.1.weight",
    }
    inner = [n for n, p in model.named_parameters() if ".ffn." in n and n.endswith("weight") and p.ndim == 1]
    assert inner and {released_name(n) for n in inner} <= decayed  # the ffn's own LayerNorm
    assert all(not names for _, _, names in multiplied)


def test_every_trained_parameter_is_in_one_group_and_no_frozen_one_is(model):
    names = [name for _, _, group in groups_by_name(model) for name in group]
    trained = [released_name(n) for n, p in model.named_parameters() if p.requires_grad]
    assert sorted(names) == sorted(trained)
    assert not any(name.startswith("conv_encoder.") for name in names)


def test_a_fine_tuned_prior_is_optimised(tiny_config):
    groups = groups_by_name(build_model(tiny_config(finetune_conv=True)))
    assert "conv_encoder.0.weight" in groups[0][2] and "conv_encoder.1.bias" in groups[1][2]


def test_lr_mult_reaches_the_parameters_that_init_params_lists():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.init_params = ["1.weight", "1.bias"]
    groups = groups_by_name(model, lr=1e-3, lr_mult=5, weight_decay=0.1)
    assert [sorted(names) for _, _, names in groups] == [["0.weight"], ["0.bias"], ["1.weight"], ["1.bias"]]
    assert [(decay, lr) for decay, lr, _ in groups] == [(0.1, 1e-3), (0.0, 1e-3), (0.1, 5e-3), (0.0, 5e-3)]


def test_lr_mult_heads_multiplies_what_is_not_in_an_encoder(tiny_config):
    changes = {"lr_mult_heads": True, "lr_mult": 10}
    groups = groups_by_name(build_model(tiny_config(optimizer=changes)), **changes)
    plain, multiplied = (groups[i][2] | groups[i + 1][2] for i in (0, 2))
    assert all(name.startswith(("vision_encoder.", "text_encoder.")) for name in plain)
    assert {"temp", "vision_proj.weight", "img_sa.0.norm1.weight", "head_txt.bias"} <= multiplied
    assert not any("encoder." in name.partition(".")[0] + "." for name in multiplied)


def rates(steps, lr=6e-5, **schedule):
    """The learning rates of that many steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = create_scheduler(SchedularConfig(**schedule), optimizer, steps_per_epoch=4)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_rate_rises_from_zero_then_falls_to_zero_in_straight_lines():
    seen = rates(21, lr=1.0, epochs=5, num_warmup_steps=0.2)
    assert seen == pytest.approx([step / 4 for step in range(4)] + [(20 - step) / 16 for step in range(4, 21)])
    assert seen[0] == 0 and max(seen) == seen[4] == 1 and seen[20] == 0


def test_warm_up_is_a_fraction_or_a_count_of_steps():
    assert rates(20, epochs=5, num_warmup_steps=0.25) == rates(20, epochs=5, num_warmup_steps=5)
    assert rates(3, lr=1.0, epochs=5, num_warmup_steps=0) == pytest.approx([1, 0.95, 0.9])


def test_the_rate_stays_zero_after_the_last_step():
    assert rates(24, epochs=5, num_warmup_steps=2)[20:] == [0] * 4


def test_epochs_given_count_instead_of_the_configs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = SchedularConfig(epochs=50, num_warmup_steps=0)
    scheduler = create_scheduler(schedule, optimizer, steps_per_epoch=1, epochs=2)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_every_group_keeps_its_own_multiple_of_the_rate():
    model = nn.Sequential(nn.Linear(2, 2))
    model.init_params = ["0.bias"]
    optimizer = create_optimizer(OptimizerConfig(lr=1.0, lr_mult=3), model)
    scheduler = create_scheduler(SchedularConfig(num_warmup_steps=2), optimizer, steps_per_epoch=4, epochs=1)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.5, 1.5, 1.5]


@pytest.mark.parametrize("kind", ["pir", "vit", "resnet", "convnext", "siglip"])
def test_with_layer_decay_the_rate_falls_from_the_top_of_each_encoder(tmp_path, tiny_config, kind):
    pir = {"is_baseline": False, "prior_backbone": "test_convnext", "instru_num": 1, "cycle_num": 1}
    model = build_model(tiny_config() if kind == "pir" else clip_config(tmp_path, kind, **pir))
    optimizer = create_optimizer(OptimizerConfig(lr=1.0, layer_decay=0.5), model)
    lr = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rate = {name: lr[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert {rate["vision_proj.weight"], rate["text_proj.weight"]} == {1.0}
    wanted = {
        "pir": {"text_encoder.backbone.embeddings.word_embeddings.weight": 0.125},
        "vit": {"clip.visual.conv1.weight": 0.125, "clip.visual.transformer.resblocks.1.ln_1.weight": 0.5},
        "resnet": {"clip.visual.conv1.weight": 0.5**5, "clip.visual.layer4.0.conv1.weight": 0.5},
        "convnext": {
            "clip.visual.head.proj.weight": 1.0,
            "clip.visual.trunk.head.norm.weight": 1.0,
            "clip.visual.trunk.stages.3.blocks.1.mlp.fc1.weight": 0.5,
        },
        "siglip": {
            "clip.visual.trunk.attn_pool.latent": 1.0,
            "clip.visual.trunk.blocks.5.norm1.weight": 0.5,
            "clip.visual.trunk.patch_embed.proj.weight": 0.5**7,
            "clip.text.token_embedding.weight": 0.125,
            "clip.text.transformer.resblocks.0.ln_1.weight": 0.25,
        },
    }[kind]
    wanted |= {"temp": 1.0} if kind == "pir" else {"clip.logit_scale": 1.0}
    assert {name: rate[name] for name in wanted} == wanted
    first = {"pir": "vision_encoder.backbone.patch_embed.", "convnext": "clip.visual.trunk.stem."}.get(kind)
    if first:
        inside = {v for n, v in rate.items() if n.startswith(first.rpartition(".")[0].rpartition(".")[0])}
        assert all(v == min(inside) < 0.2 for n, v in rate.items() if n.startswith(first))


def test_without_layer_decay_there_are_the_four_released_groups(tiny_config):
    assert len(create_optimizer(OptimizerConfig(), build_model(tiny_config())).param_groups) == 4
