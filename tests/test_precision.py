"""What a step computes in: the names of `precision`, and the loss scaled in fp16."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from utils import processes
from utils.train_state import TrainState, gradient_scaler
from utils.training import train_epoch

CPU = torch.device("cpu")
TINY = 1e-7  # a quarter of it is nothing in fp16, whose least number is 6e-8


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", None), ("fp32", None), ("tf32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_a_precision_says_what_autocast_computes_in(precision, dtype):
    assert processes.autocast_dtype(precision, CPU) == dtype


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_asks_the_processor(monkeypatch, has_bf16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16})
    assert processes.autocast_dtype("auto", CPU) == (torch.bfloat16 if has_bf16 else None)


@pytest.fixture
def card_settings():
    """torch's, put back afterwards; they are there without a card."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.parametrize(("precision", "tf32"), [("float32", True), ("tf32", True), ("bf16", True), ("fp32", False)])
def test_on_a_card_only_fp32_is_without_tf32(card_settings, precision, tf32):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not tf32
    processes.use_published_settings(torch.device("cuda"), precision)
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32


class HalfTask:
    """One weight behind a factor in fp16 through which an unscaled gradient vanishes; `overflow`: none is finite."""

    def __init__(self, weight, overflow):
        self.weight, self.overflow = weight, overflow

    def step(self, batch):
        half = (self.weight * TINY).half() if self.overflow else self.weight.half() * TINY
        loss = (half.float() * (1e38 if self.overflow else 0.25)).sum()
        return loss, {"loss": loss.detach()}

    def describe(self, batch):
        return str(batch)


class Batches:
    batch_size = 1

    def __len__(self):
        return 1

    def __iter__(self):
        return iter([0])

    def set_epoch(self, epoch):
        pass


def moved_by(scaler, overflow=False):
    """How far one step moves the weight: by its gradient, as AdamW's eps of 1 is far above it."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)  # beside which a small step is not rounded away
    optimizer = AdamW(model.parameters(), lr=1.0, eps=1.0, weight_decay=0.0, fused=True)  # as `create_optimizer`'s
    state = TrainState(model, None, optimizer, LambdaLR(optimizer, lambda _: 1.0), scaler=scaler)
    train_epoch(HalfTask(model.weight, overflow), state, Batches(), 0, 1)
    return -model.weight.item()


def test_in_fp16_a_small_gradient_is_kept_by_scaling_the_loss():
    unscaled, scaled = (moved_by(gradient_scaler(CPU, dtype)) for dtype in (None, torch.float16))
    assert scaled == pytest.approx(TINY / 4, rel=0.02)
    assert unscaled == 0


def test_in_fp16_a_step_whose_gradient_overflows_is_left_out_and_the_scale_lowered():
    scaler = gradient_scaler(CPU, torch.float16)
    assert moved_by(scaler, overflow=True) == 0
    assert scaler.get_scale() < 2.0**16


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_scale_goes_on_where_a_run_was_cut_short(tmp_path, precision):
    dtype = processes.autocast_dtype(precision, CPU)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def state():
        schedule = LambdaLR(optimizer, lambda _: 1.0)
        return TrainState(model, None, optimizer, schedule, scaler=gradient_scaler(CPU, dtype))

    before, after = state(), state()
    if precision == "fp16":
        before.scaler.scale(torch.ones(()))  # which makes the scale
        before.scaler.update(512.0)
    before.save(tmp_path / "resume.pth", {})
    after.restore(tmp_path / "resume.pth", {})
    assert after.scaler.get_scale() == (512.0 if precision == "fp16" else 1.0)
