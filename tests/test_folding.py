"""Batch norm folded into convolutions: the same embeddings, without the norms."""

import pytest
import timm
import torch
from torch import nn

from models.folding import fold_batch_norm
from tests.test_common_stages import COMMON, LITE, count_of
from tests.tiny import pictures, tiny_model


def with_statistics(model):
    """Norms that do something."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 2),
                (norm.weight, 0.5, 2),
            ):
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return model.eval()


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "left"), [("tf_efficientnet_lite0", 0), ("efficientnet_b0", 0), ("resnet18", 0), ("resnet10t", 1)]
)
@torch.no_grad()
def test_the_features_stay_the_same(name, left):
    """resnet10t has a norm behind three convolutions of a stem, which stays."""
    model = with_statistics(timm.create_model(name, num_classes=0))
    images = pictures(2, 64)
    wanted = model(images)
    assert len(norms(model)) > 10
    fold_batch_norm(model)
    assert len(norms(model)) == left
    torch.testing.assert_close(model(images), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    assert wanted.std() > 0


@torch.no_grad()
def test_a_models_embeddings_stay_the_same_and_stages_in_common_remain(tiny_config):
    model = with_statistics(tiny_model(tiny_config(**LITE)))
    model.instruction_encoder.backbone.load_state_dict(model.vision_encoder.backbone.state_dict())
    images = pictures(3, 112)
    wanted = model.encode_image(images)
    fold_batch_norm(model)
    assert norms(model) == [] and count_of(model) >= COMMON
    torch.testing.assert_close(model.encode_image(images), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_networks_of_other_kinds_are_left_alone(tiny_config):
    model = tiny_model(tiny_config(prior_backbone="mobilenetv3_small_050"))
    before = len(norms(model))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold_batch_norm(model)
    assert len(norms(model)) == before > 10
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
