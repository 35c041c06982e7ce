"""A batch embedded in pieces (`accumulate`): the gradient of the whole, with the memory of one."""

from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from models import pieces
from tests.processes import run_on_processes
from tests.tiny import captions, pictures, tiny_model, without_dropout
from tests.tiny import tiny_config as tiny_config_in
from utils import processes

IDX = torch.tensor([5, 5, 7, 7, 9, 9, 3, 3])  # four pictures with two captions each
LABEL = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2])
WHOLE = {"gather_grad": "full", "center_scope": "global", "prior_backbone": "resnet10t"}
WITHOUT_BATCH_NORM = WHOLE | {"prior_batch_stats": False}  # which would be of a process


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trained(config, *, dropout=False, seed=0):
    """Loss and gradients of one step of all four pictures."""
    model = tiny_model(config)
    model = (model if dropout else without_dropout(model)).train()
    torch.manual_seed(seed)
    loss = model(pictures(4, 112), captions(8, 12), idx=IDX, label=LABEL)["loss"]
    loss.backward()
    return loss.detach(), gradients(model)


def assert_same(one, other):
    assert one[1].keys() == other[1].keys() and len(one[1]) > 50
    torch.testing.assert_close(one[0], other[0])
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, other[1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("modules", [{}, {"use_tel": True}, {"is_baseline": True}], ids=["pir", "tel", "baseline"])
@pytest.mark.parametrize("count", [2, 3, 50])
def test_pieces_have_the_gradient_of_the_whole_batch(tiny_config, modules, count):
    options = WHOLE | modules
    assert_same(trained(tiny_config(**options)), trained(tiny_config(accumulate=count, **options)))


def test_the_second_pass_has_the_dropout_of_the_first(tiny_config, monkeypatch):
    config = tiny_config(accumulate=2, **WHOLE)
    in_pieces = trained(config, dropout=True)
    assert not torch.equal(in_pieces[0], trained(config, dropout=True, seed=1)[0])  # there is some
    monkeypatch.setattr(pieces, "checkpoint", lambda embed, *piece, use_reentrant: embed(*piece))
    assert_same(in_pieces, trained(config, dropout=True))


@pytest.mark.parametrize("backbone", [{}, {"vision_config": {"backbone": "tf_efficientnet_lite0"}, "filter_size": 10}])
def test_activations_that_are_computed_again_give_the_same_gradient(tiny_config, backbone):
    """Dropout and drop path included."""
    options = WHOLE | backbone
    kept = trained(tiny_config(**options), dropout=True)
    assert not torch.equal(kept[0], trained(tiny_config(**options), dropout=True, seed=1)[0])
    assert_same(kept, trained(tiny_config(checkpoint_activations=True, **options), dropout=True))


def held(config):
    """Bytes that a step keeps for its gradient, those that it computes again left out."""
    model, sizes = tiny_model(config).train(), []
    with saved_tensors_hooks(lambda tensor: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor):
        model(pictures(4, 112), captions(8, 12), idx=IDX, label=LABEL)
    return sum(sizes)


def test_activations_that_are_computed_again_are_not_held(tiny_config):
    assert 0 < held(tiny_config(checkpoint_activations=True, **WHOLE)) < 0.7 * held(tiny_config(**WHOLE))


def test_what_is_held_between_the_passes_is_a_small_part(tiny_config):
    assert 0 < held(tiny_config(accumulate=4, **WHOLE)) < held(tiny_config(**WHOLE)) / 10


def parallel_gradients(folder):
    """The averaged gradient of two pictures of four a process, in two pieces."""
    own = Path(folder) / str(processes.rank())
    own.mkdir()
    model = without_dropout(tiny_model(tiny_config_in(own, accumulate=2, **WITHOUT_BATCH_NORM))).train()
    here = slice(4 * processes.rank(), 4 * processes.rank() + 4)
    given = pictures(4, 112)[here.start // 2 : here.stop // 2], captions(8, 12)[here]
    parallel = DistributedDataParallel(model)  # kept: its end would be that of the averaging
    loss = parallel(*given, idx=IDX[here], label=LABEL[here])["loss"]
    loss.backward()
    return loss.detach(), gradients(model)


def test_two_processes_in_pieces_have_the_gradient_of_one_with_all(tiny_config, tmp_path):
    alone = trained(tiny_config(**WITHOUT_BATCH_NORM))
    for result in run_on_processes(2, parallel_gradients, str(tmp_path)):
        assert_same(alone, result)
