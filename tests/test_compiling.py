"""`compile`: the same model through torch's compiler, and training without it where there is none."""

import pytest
import torch

from models import compiling
from tests.tiny import captions, pictures, tiny_model, without_dropout

CPU = torch.device("cpu")
IDX, LABEL = torch.tensor([5, 7, 9, 3]), torch.tensor([0, 1, 0, 2])


def step(model, length=12):
    """Loss and gradients of a step."""
    model.zero_grad()
    loss = model(pictures(4, 112), captions(4, length), idx=IDX, label=LABEL)["loss"]
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def eager(monkeypatch):
    """torch's compiler with its graphs run as they are: what is traced, without a C++ compiler's minutes."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **options: compiled(module, backend="eager", **options)
    )
    yield
    torch.compiler.reset()


def test_compiled_encoders_give_the_same_loss_gradients_and_names(tiny_config, eager):
    model = without_dropout(tiny_model(tiny_config(prior_backbone="resnet10t"))).train()
    names = [*model.state_dict()]
    plain = [step(model, length) for length in (12, 9)]
    compiling.compile_encoders(model, CPU)
    assert [*model.state_dict()] == names
    for (loss, gradients), length in zip(plain, (12, 9), strict=True):
        again, compiled = step(model, length)
        torch.testing.assert_close(again, loss, atol=1e-5, rtol=1e-4)
        assert compiled.keys() == gradients.keys() and len(compiled) > 50
        for name, gradient in gradients.items():
            torch.testing.assert_close(compiled[name], gradient, atol=1e-4, rtol=1e-3, msg=name)
    assert all(encoder._compiled_call_impl for encoder in (model.vision_encoder, model.text_encoder))


def test_where_the_compiler_does_not_work_a_line_says_so_and_nothing_is_compiled(tiny_config, monkeypatch, capsys):
    def broken(_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    model = tiny_model(tiny_config(prior_backbone="resnet10t"))
    compiling.compile_encoders(model, CPU)
    assert (
        "compile: torch's compiler does not work here (RuntimeError: no C++ compiler); going on without it"
        in capsys.readouterr().out
    )
    assert model.vision_encoder._compiled_call_impl is None
    assert torch.isfinite(step(model.train())[0])
