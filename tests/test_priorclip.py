"""PriorCLIP against numbers recorded from its released code, with the same weights and inputs."""

import json

import numpy as np
import pytest
import torch

from models import build_model
from models.released import load_released, released_state_dict
from tests.parity import weights
from utils.config import config_from_file

FORMS = {"released": "released", "before_2024_10": "belief"}


@pytest.fixture(scope="module")
def recorded(parity):
    return json.loads((parity / "prior_clip" / "cases.json").read_text())


@pytest.fixture(scope="module")
def model(parity):
    """Of the published sizes, with the weights that were recorded with."""
    layout = json.loads((parity / "prior_clip" / "layout.json").read_text())
    model = build_model(config_from_file("configs/Retrieval_rsicd_priorclip.yaml")).eval()
    assert {name: list(tensor.shape) for name, tensor in released_state_dict(model).items()} == layout
    state = {n: torch.from_numpy(np.asarray(weights.fill_clip(n, tuple(s)))).reshape(s) for n, s in layout.items()}
    load_released(model, state)
    return model


@pytest.fixture(scope="module", params=FORMS)
def measured(request, model, recorded, parity):
    """(what is recorded, embeddings, losses, gradient norms by part) of a form."""
    model.soft_weight = FORMS[request.param]
    images = torch.from_numpy(weights.images(recorded["seed"], recorded["n"]))
    ids = torch.from_numpy(weights.clip_captions(recorded["seed"] + 1, recorded["n"]))
    embeds, part = {}, {}
    for name, verb, given in (("image", model.encode_image, images), ("text", model.encode_text, ids)):
        with torch.no_grad():
            embeds[f"{name}_embeds"] = verb(given).numpy()
    model.zero_grad()
    losses = model(images, ids, label=torch.tensor(recorded["label"]))
    losses["loss"].backward()
    for name, parameter in model.named_parameters():
        first = name.removeprefix("clip.").split(".")[0]
        part[first] = part.get(first, 0.0) + float(parameter.grad.pow(2).sum())
    norms = {first: square**0.5 for first, square in part.items()}
    return recorded[request.param], np.load(parity / "prior_clip" / f"{request.param}.npz"), embeds, losses, norms


def test_embeddings_agree_with_those_recorded(measured):
    _, wanted, embeds, _, _ = measured
    for name, got in embeds.items():
        np.testing.assert_allclose(got, wanted[name], atol=1e-4, rtol=0)


def test_losses_agree_with_those_recorded(measured):
    wanted, _, _, losses, _ = measured
    for ours, theirs in (("loss_contr", "contrastive_loss"), ("loss_affil", "affiliation_loss")):
        assert losses[ours].item() == pytest.approx(wanted["losses"][theirs], abs=1e-4)


def test_gradients_agree_with_those_recorded(measured):
    wanted, _, _, _, norms = measured
    assert norms.keys() == wanted["grad_norms"].keys()
    for part, norm in wanted["grad_norms"].items():
        assert norms[part] == pytest.approx(norm, rel=0.01), part


def test_it_has_the_published_number_of_parameters(model):
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 188.94
