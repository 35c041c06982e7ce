"""The stages that a picture encoder and its prior have in common: computed once, when they are the same."""

from copy import deepcopy

import pytest
import torch

from models import build_model
from tests.tiny import TEXT, captions, pictures, without_dropout

LITE = {
    "vision_config": {"backbone": "tf_efficientnet_lite0"},
    "prior_backbone": "tf_efficientnet_lite0",
    "prior_batch_stats": False,
    "vision_trained_stages": 3,
    "vision_fixed_bn": True,
    "filter_size": 10,
    "text_config": TEXT,
}
IDX = torch.arange(3)
COMMON = 6  # the stem, its norm and four of the seven blocks; the others are trained


@pytest.fixture
def model(tiny_config):
    """A model whose prior starts as the picture encoder does, in training."""
    torch.manual_seed(0)
    made = build_model(tiny_config(**LITE))
    for module in made.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    made.instruction_encoder.backbone.load_state_dict(made.vision_encoder.backbone.state_dict())
    return without_dropout(made).train()


def count_of(model):
    common = model.common_stages
    return common.count(model.vision_encoder, model.instruction_encoder) if common else 0


def a_step(model):
    model.zero_grad()
    losses = model(pictures(3, 112), captions(3, 12), idx=IDX, label=IDX)
    losses["loss"].backward()
    return losses["loss"].detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def calls(module, work):
    """How often a module is called in `work()`."""
    counted = []
    hook = module.register_forward_hook(lambda *_: counted.append(1))
    work()
    hook.remove()
    return len(counted)


def test_the_common_stages_are_computed_once_and_change_nothing(model):
    assert count_of(model) == COMMON
    stems = [encoder.backbone.conv_stem for encoder in (model.vision_encoder, model.instruction_encoder)]
    assert [calls(stem, lambda: a_step(model)) for stem in stems] == [1, 0]
    once = a_step(model)
    model.common_stages = None
    twice = a_step(model)
    assert torch.equal(once[0], twice[0]) and once[1].keys() == twice[1].keys()
    assert all(torch.equal(grad, twice[1][name]) for name, grad in once[1].items())


def test_weights_that_become_different_are_not_common_any_more(model):
    with torch.no_grad():
        model.instruction_encoder.backbone.blocks[1][0].conv_pw.weight[0] += 1
    assert count_of(model) == 3
    model.instruction_encoder.backbone.load_state_dict(model.vision_encoder.backbone.state_dict())
    assert count_of(model) == COMMON
    model.vision_encoder.backbone.bn1.running_mean += 1
    assert count_of(model) == 1


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"vision_trained_stages": None}, 0),
        ({"vision_fixed_bn": False}, 1),  # the convolution before the first norm
        ({"prior_batch_stats": True}, 1),
        ({"finetune_conv": True}, 0),
        ({"prior_normalisation": "clip"}, 0),
        ({"prior_backbone": "resnet10t"}, 0),
    ],
    ids=lambda changes: next(iter(changes)) if isinstance(changes, dict) else "",
)
def test_what_is_trained_or_of_another_kind_is_not_common(tiny_config, changes, most):
    model = build_model(tiny_config(**LITE | changes)).train()
    if "prior_backbone" not in changes:
        model.instruction_encoder.backbone.load_state_dict(model.vision_encoder.backbone.state_dict())
    assert count_of(model) == most


def test_an_encoder_that_is_replaced_is_not_used_any_more(model):
    model.instruction_encoder.backbone.blocks[1] = deepcopy(model.instruction_encoder.backbone.blocks[1])
    assert count_of(model) == COMMON
    with torch.no_grad():
        model.instruction_encoder.backbone.blocks[1][0].conv_pw.weight += 1
    assert count_of(model) == 3
    model.vision_encoder = deepcopy(model.vision_encoder)
    with torch.no_grad():
        model.vision_encoder.backbone.conv_stem.weight += 1
    assert count_of(model) == 0


def test_the_pixels_have_a_gradient_as_before(model):
    images = pictures(2, 112).requires_grad_()
    through_common = torch.autograd.grad(model.encode_image(images).sum(), images)[0]
    model.common_stages = None
    apart = torch.autograd.grad(model.encode_image(images).sum(), images)[0]
    assert apart.abs().max() > 0
    torch.testing.assert_close(through_common, apart, rtol=1e-4, atol=1e-6 * float(apart.abs().max()))


def test_a_model_made_where_nothing_is_differentiated_has_common_stages_too(model, tiny_config):
    state = model.state_dict()
    with torch.inference_mode():
        made = build_model(tiny_config(**LITE))
        made.load_state_dict(state)
        made.eval()
        assert count_of(made) == COMMON
        made.instruction_encoder.backbone.conv_stem.weight += 1
        assert count_of(made) == 0


@pytest.mark.parametrize("batch_stats", [True, False])
def test_pieces_of_a_batch_go_with_common_stages(model, tiny_config, batch_stats):
    """With statistics of the batch the stem alone is common, and the prior must see the batch whole."""
    results = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        changed = build_model(tiny_config(**LITE | {"prior_batch_stats": batch_stats, "accumulate": accumulate}))
        changed.load_state_dict(model.state_dict())
        results.append(a_step(without_dropout(changed).train()))
        counted = changed.instruction_encoder.backbone.bn1.num_batches_tracked
        assert int(counted) == batch_stats
    torch.testing.assert_close(results[0][0], results[1][0])
    for name, grad in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], grad, atol=1e-5, rtol=1e-4, msg=name)


def test_a_copy_looks_at_its_own_weights(model):
    copy = deepcopy(model)
    with torch.no_grad():
        copy.vision_encoder.backbone.conv_stem.weight += 1
    assert (count_of(copy), count_of(model)) == (0, COMMON)
