"""The model against its own recorded numbers, which need nothing beside the project."""

import json

import pytest
import torch

from tests.record import CASES, FILE, STEPS, record


@pytest.fixture(scope="module")
def recorded():
    return json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=CASES)
def case(request, recorded, tmp_path_factory):
    """(what is recorded, what comes out now) of a case."""
    return recorded[request.param], record(request.param, tmp_path_factory.mktemp("sizes"))


def agree(got, wanted, tolerance=1e-4):
    """Losses agree to the tolerance, relative above 1."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name] == pytest.approx(value, abs=tolerance * max(1, abs(value)), rel=0), name


def test_every_case_is_recorded_and_small(recorded):
    assert recorded.keys() == CASES.keys()
    assert FILE.stat().st_size < 100_000


@pytest.mark.parametrize("side", ("image_embeds", "text_embeds"))
def test_embeddings_are_as_recorded(case, side):
    wanted, got = (torch.tensor(numbers[side]) for numbers in case)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    assert wanted.std(dim=0).min() > 5e-3  # the inputs are told apart, so a wrong embedding would show


def test_losses_are_as_recorded_in_evaluation_and_training_mode(case):
    wanted, got = case
    agree(got["losses"], wanted["losses"])
    agree(got["losses_in_training_mode"], wanted["losses_in_training_mode"])


def test_gradient_norms_are_as_recorded(case):
    wanted, got = case
    assert got["gradient_norm"] == pytest.approx(wanted["gradient_norm"], rel=0.01)
    assert got["gradient_norms"].keys() == wanted["gradient_norms"].keys()
    for name, norm in wanted["gradient_norms"].items():
        assert got["gradient_norms"][name] == pytest.approx(norm, rel=0.01), name


def test_training_steps_are_as_recorded(case):
    wanted, got = (dict(enumerate(numbers["trajectory"])) for numbers in case)
    assert len(wanted) == STEPS and wanted[STEPS - 1][1] < 0.9 * wanted[0][1]  # it learns, so the steps count
    agree({step: lr for step, (lr, _) in got.items()}, {step: lr for step, (lr, _) in wanted.items()}, 1e-9)
    agree({step: loss for step, (_, loss) in got.items()}, {step: loss for step, (_, loss) in wanted.items()})
