"""What a training goes on from after an interruption: the last whole epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from utils.checkpoint import read_torch_file, save
from utils.errors import InputError


@dataclass
class Training:
    """The parts of a training that change, and where it stands."""

    model: nn.Module
    average: AveragedModel | None  # of the weights, where the config asks for one
    optimizer: Optimizer
    scheduler: LRScheduler
    next_epoch: int = 0
    best_epoch: int = 0
    best: float = -1.0  # of the best epoch, the figure that epochs are compared by

    @property
    def best_model(self) -> nn.Module:
        """The model that is evaluated and kept: the average where there is one."""
        return self.average.module if self.average else self.model

    def save(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Write everything, and with it what a run that goes on must have in common with this one."""
        parts = {name: part.state_dict() if part else None for name, part in self._parts().items()}
        progress = {"next_epoch": self.next_epoch, "best_epoch": self.best_epoch, "best": self.best}
        save(file, parts | progress | {"identity": dict(identity)})

    def restore(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Read what `save` wrote; InputError naming what differs from the run that wrote it."""
        saved = read_torch_file(file)
        before = saved["identity"]
        differing = sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key))
        if differing:
            raise InputError(f"--resume: {', '.join(differing)} differ from the run that {file} is of; restore them")
        for name, part in self._parts().items():
            if part:
                part.load_state_dict(saved[name])
        self.next_epoch, self.best_epoch, self.best = saved["next_epoch"], saved["best_epoch"], saved["best"]

    def _parts(self) -> dict[str, Any]:
        parts = ("model", "average", "optimizer", "scheduler")
        return {name: getattr(self, name) for name in parts}
