"""DistributedDataParallel as a training uses it: what waits for what, and what is not sent."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from models import build_model
from optim import create_optimizer
from tests.processes import run_on_processes
from tests.tiny import captions, pictures, tiny_model, without_dropout
from tests.tiny import tiny_config as tiny_config_in
from utils import processes
from utils.config_parts import OptimizerConfig
from utils.train_state import TrainState
from utils.training import Run, train

IDX, LABEL = torch.tensor([5, 7, 9, 3]), torch.tensor([0, 1, 0, 2])
# Behind its feature map this backbone has a convolution, which its tokens do not depend on.
BEHIND = {"vision_config": {"backbone": "mobilenetv3_small_050"}, "filter_size": 10, "prior_backbone": "resnet10t"}


@pytest.mark.parametrize("changes", [{}, {"checkpoint_activations": True}, {"vision_trained_stages": 2}])
def test_what_a_backbones_tokens_do_not_depend_on_is_fixed_and_all_else_gets_a_gradient(tiny_config, changes):
    model = build_model(tiny_config(**BEHIND | changes))
    model.train()(pictures(4, 112), captions(4, 12), idx=IDX, label=LABEL)["loss"].backward()
    parameters = dict(model.vision_encoder.backbone.named_parameters())
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not any(p.requires_grad for name, p in parameters.items() if name.startswith("conv_head"))
    assert parameters["blocks.5.0.conv.weight"].requires_grad
    assert parameters["conv_stem.weight"].requires_grad == ("vision_trained_stages" not in changes)


def test_what_is_fixed_so_is_saved_as_before(tiny_config):
    names = build_model(tiny_config(**BEHIND)).state_dict().keys()
    assert {"vision_encoder.backbone.conv_head.weight", "vision_encoder.backbone.conv_stem.weight"} <= names


def parallel_steps(folder, changes):
    """Two steps in parallel; what is trained and what is kept beside it, after them and after the broadcast."""
    own = Path(folder) / str(processes.rank())
    own.mkdir()
    model = without_dropout(tiny_model(tiny_config_in(own, **changes))).train()
    parallel, optimizer = processes.in_parallel(model), create_optimizer(OptimizerConfig(lr=1e-3), model)
    rank = processes.rank()
    for _ in range(2):
        images = pictures(8, 112)[4 * rank : 4 * rank + 4]
        optimizer.zero_grad()
        parallel(images, captions(4, 12), idx=IDX, label=LABEL)["loss"].backward()
        optimizer.step()
    trained = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    own_buffers = {name: b.clone() for name, b in model.named_buffers()}
    processes.broadcast_buffers(model)
    return {"trained": trained, "own": own_buffers, "sent": dict(model.named_buffers())}


@pytest.mark.parametrize("changes", [BEHIND, BEHIND | {"accumulate": 2, "checkpoint_activations": True}])
def test_processes_train_the_same_and_send_no_buffers_before_they_are_needed(tmp_path, changes):
    one, other = run_on_processes(2, parallel_steps, str(tmp_path), changes)
    assert all(torch.equal(tensor, other["trained"][name]) for name, tensor in one["trained"].items())
    running = [name for name in one["own"] if name.endswith("running_mean")]
    assert len(running) > 20
    assert not any(torch.equal(one["own"][name], other["own"][name]) for name in running)
    for name, buffer in one["own"].items():  # rank 0's, on both
        assert torch.equal(one["sent"][name], buffer) and torch.equal(other["sent"][name], buffer)


class SplitDecision:
    """A task whose second process sees another epoch as the best."""

    split, figure, kept = "val", "top1", "best.pth"

    def __init__(self, model):
        self.model, self.epochs = model, 0

    def step(self, batch):
        loss = self.model(batch).sum()
        return loss, {"loss": loss.detach()}

    def evaluate(self, model):
        self.epochs += 1
        return {"top1": 50.0 + processes.rank() * self.epochs}

    def write(self, model, file):
        if processes.is_main():
            torch.save(model.state_dict(), file)


class Batches(list):
    batch_size = 1

    def set_epoch(self, epoch):
        pass


def best_epochs(folder):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    state = TrainState(model, None, optimizer, LambdaLR(optimizer, lambda _: 1.0))
    config = SimpleNamespace(schedular=SimpleNamespace(epochs=3), to_dict=lambda: {})
    run = Run(config, Path(folder), 0, torch.device("cpu"), None, False)
    train(SplitDecision(model), state, Batches([torch.ones(1, 1)]), run, {})
    return state.best_epoch


def test_which_epoch_is_the_best_is_the_first_process_word(tmp_path):
    assert run_on_processes(2, best_epochs, str(tmp_path)) == [0, 0]
