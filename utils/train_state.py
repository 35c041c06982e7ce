"""The parts of a training that change, and where it stands: what a run that was interrupted goes on from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from utils.checkpoint import read_torch_file, save
from utils.errors import InputError, reason
from utils.files import file_checksum
from utils.processes import is_main

Model = TypeVar("Model", bound=nn.Module)
PARTS = ("model", "average", "optimizer", "scheduler")
PROGRESS = {"next_epoch": int, "best_epoch": int, "best": float, "best_sha256": str, "seconds": float}


@dataclass
class TrainState(Generic[Model]):
    """What changes in a training. `resume.pth` is this after the last whole epoch."""

    model: Model
    average: AveragedModel | None  # of the weights, where the config asks for one
    optimizer: Optimizer
    scheduler: LRScheduler
    next_epoch: int = 0
    best_epoch: int = 0
    best: float = -1.0  # of the best epoch, the figure that epochs are compared by
    best_sha256: str = ""  # of the file with the best epoch's weights
    seconds: float = 0.0  # of training so far, those before interruptions among them
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))  # of the loss, in fp16
    clip_grad_norm: float = 0.0  # the most length of a step's gradient; 0: any

    @property
    def evaluated_model(self) -> Model:
        """The model that is evaluated and kept: the average where there is one."""
        # torch does not say that an average's model is of the class it was made from.
        return cast(Model, self.average.module) if self.average else self.model

    def save(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Write everything, and with it what a run that goes on must have in common with this one; all must ask."""
        parts = {name: part.state_dict() if part else None for name, part in self._parts().items()}
        progress = {name: getattr(self, name) for name in PROGRESS}
        if is_main():
            save(file, parts | progress | {"scaler": self.scaler.state_dict(), "identity": dict(identity)})

    def restore(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Read what `save` wrote; InputError for another run's, naming what differs, and for a damaged file."""
        saved = read_torch_file(file)
        damaged = f"{file} is damaged, or of another version of this program; give --overwrite to start again"
        whole = isinstance(saved, dict) and {*PARTS, *PROGRESS, "identity"} <= {*saved}
        if not whole or not isinstance(saved["identity"], dict):
            raise InputError(damaged)
        before = saved["identity"]
        unknown = {key for key in identity if key.startswith("the content of") and identity[key] is None}
        keys = {*before, *identity} - unknown
        # A key that the run's version of this program had not is no difference where it is off.
        asked = {key for key in keys if key in before or identity[key]}
        differing = sorted(key for key in asked if before.get(key) != identity.get(key))
        if differing:
            raise InputError(f"--resume: {', '.join(differing)} differ from the run that {file} is of; restore them")
        if any(type(saved[name]) is not kind for name, kind in PROGRESS.items()):
            raise InputError(damaged)
        try:
            for name, part in self._parts().items():
                if part:
                    part.load_state_dict(saved[name])
            self.scaler.load_state_dict(saved.get("scaler", {}))
        except Exception as error:  # of whatever stands in the file in a part's place
            raise InputError(f"{damaged} ({reason(error)[:100]})") from None
        for name in PROGRESS:
            setattr(self, name, saved[name])

    def restore_best(self, file: Path) -> None:
        """See that the best epoch's weights are those that this state is of; `file` is where they belong.

        Weights that a crash left beside it, before they were moved there, are moved. Raises InputError where they are
        missing or others, since the result would name one epoch and measure another.
        """
        waiting = waiting_for(file)
        if waiting.exists() and file_checksum(waiting) == self.best_sha256:
            os.replace(waiting, file)
        if not file.is_file() or file_checksum(file) != self.best_sha256:
            what = "holds other weights than" if file.is_file() else "is missing, which held"
            raise InputError(f"--resume: {file} {what} the best epoch's, {self.best_epoch}; restore it, or --overwrite")

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in PARTS}


def waiting_for(file: Path) -> Path:
    """Where the best epoch's weights wait until `resume.pth` names them: the two files change together."""
    return file.with_name(f"{file.name}.next")


def gradient_scaler(device: torch.device, autocast: torch.dtype | None) -> GradScaler:
    """What keeps the gradients of fp16 from vanishing; with any other type it does nothing."""
    return GradScaler(device.type, enabled=autocast == torch.float16)


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential average of weights and buffers, to be updated after each step; None with decay 0."""
    if not decay:
        return None

    # Whole numbers (positions, counters) have no average, nor has a mask, which holds -inf.
    unaveraged = {b.data_ptr() for b in model.buffers() if not (b.is_floating_point() and b.isfinite().all())}

    def step(average: Tensor, now: Tensor, _: Tensor | int) -> Tensor:
        return now if now.data_ptr() in unaveraged else average.lerp(now, 1 - decay)

    return AveragedModel(model, avg_fn=step, use_buffers=True)
