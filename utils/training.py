"""The training loop and its state, whatever is trained: a retrieval model or a scene classifier."""

import argparse
import time
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from utils import output, processes
from utils.checkpoint import read_torch_file, save
from utils.config import SchedularConfig, process_batch
from utils.errors import InputError
from utils.logs import Curves, Meters, append_line, progress, say, truncate_log
from utils.typed import write_yaml


class TrainConfig(Protocol):
    """What the loop reads of a config, whatever else it holds."""

    @property
    def batch_size_train(self) -> int:
        """Per process."""

    @property
    def precision(self) -> str:
        """float32, bf16 or auto."""

    @property
    def schedular(self) -> SchedularConfig:
        """Epochs and learning rates."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML."""


ConfigKind = TypeVar("ConfigKind", bound=TrainConfig)
Model = TypeVar("Model", bound=nn.Module)
Model_contra = TypeVar("Model_contra", bound=nn.Module, contravariant=True)  # of a task, which only takes models


@dataclass(frozen=True)
class Run(Generic[ConfigKind]):
    """What every part of a training or an evaluation needs to know of it."""

    config: ConfigKind
    output_dir: Path
    seed: int
    batch_size: int  # of training, per process
    device: torch.device
    bf16: bool
    resuming: bool


class TrainBatches(Iterable[Any], Sized, Protocol):
    """A loader, as the loop sees it."""

    batch_size: int  # of this process

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration give this epoch."""


class Task(Protocol[Model_contra]):
    """What is trained, as the loop sees it."""

    split: str  # that epochs are evaluated on
    figure: str  # of an evaluation, by which epochs are compared

    def step(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, with its graph, and the values whose means over the epoch are logged."""

    def describe(self, batch: Any) -> str:
        """What is in a batch, for a person to look at."""

    def evaluate(self, model: Model_contra) -> dict[str, float]:
        """Figures of a model on the split, the same on every process."""

    def save(self, model: Model_contra, epoch: int, *, best: bool) -> None:
        """Keep the weights of an epoch, where they are to be kept; called on process 0 alone."""


@dataclass
class TrainState(Generic[Model]):
    """The parts of a training that change, and where it stands: what it resumes from is the last whole epoch."""

    model: Model
    average: AveragedModel | None  # of the weights, where the config asks for one
    optimizer: Optimizer
    scheduler: LRScheduler
    next_epoch: int = 0
    best_epoch: int = 0
    best: float = -1.0  # of the best epoch, the figure that epochs are compared by

    @property
    def best_model(self) -> Model:
        """The model that is evaluated and kept: the average where there is one."""
        # torch does not say that an average's model is of the class it was made from.
        return cast(Model, self.average.module) if self.average else self.model

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
        return {name: getattr(self, name) for name in ("model", "average", "optimizer", "scheduler")}


def start_run(args: argparse.Namespace, config: ConfigKind) -> Run[ConfigKind]:
    """Start this process on its device, with `--output_dir` made and free for what the arguments ask.

    Raises InputError where the folder holds a run already or cannot be written, and for a `--bs` that does not divide.
    """
    batch_size = process_batch(config.batch_size_train, args.bs, processes.announced_world_size())
    output.check_output(args.output_dir, resume=args.resume, overwrite=args.overwrite, evaluate=args.evaluate)
    device = processes.start(args.device)
    if processes.is_main():
        output.open_output(args.output_dir)
    processes.barrier()
    output.wait_for_output(args.output_dir)
    resuming = args.resume and (args.output_dir / output.RESUME).exists()
    bf16 = processes.bf16_used(config.precision, device)
    return Run(config, args.output_dir, args.seed, batch_size, device, bf16, resuming)


def train(
    task: Task[Model], state: TrainState[Model], loader: TrainBatches, run: Run, identity: Mapping[str, Any]
) -> None:
    """Train the epochs that are left; `state.best_epoch` is then the one whose figure is the highest.

    Writes `config.yaml`, and each epoch a line of `log.txt`, curves and `resume.pth` to the run's folder.
    identity: what, beside config, seed and batch, a run that is resumed must have been started with.
    """
    epochs, folder, config = run.config.schedular.epochs, run.output_dir, run.config.to_dict()
    # The number of workers changes nothing of what is trained.
    identity = {k: v for k, v in config.items() if k != "num_workers"} | dict(identity)
    identity |= {"--seed": run.seed, "batch of a process": run.batch_size, "processes": processes.world_size()}
    if run.resuming:
        state.restore(folder / output.RESUME, identity)
        say(f"going on with epoch {state.next_epoch + 1}/{epochs}")
    if processes.is_main():
        write_yaml(config, folder / output.CONFIG)
        truncate_log(folder / output.LOG, state.next_epoch)

    with Curves(folder / output.CURVES if processes.is_main() else None) as curves:
        for epoch in range(state.next_epoch, epochs):
            # An epoch draws the same dropout whether or not the run was interrupted before it.
            torch.manual_seed(run.seed + 1000 * (epoch + 1) + processes.rank())
            trained = train_epoch(task, state, loader, epoch, epochs)
            processes.broadcast_buffers(state.best_model)
            figures = task.evaluate(state.best_model)

            state.next_epoch = epoch + 1
            best = figures[task.figure] > state.best
            if best:
                state.best_epoch, state.best = epoch, figures[task.figure]
            if processes.is_main():
                task.save(state.best_model, epoch, best=best)
                line = {f"train_{name}": value for name, value in trained.items()}
                line |= {f"{task.split}_{name}": value for name, value in figures.items()}
                append_line(folder / output.LOG, line | {"epoch": epoch, "best_epoch": state.best_epoch})
                curves.add(trained, epoch, "train/")
                curves.add(figures, epoch, f"{task.split}/")
                reached = f"{task.split} {task.figure} {figures[task.figure]:.2f}"
                say(f"epoch {epoch}: {reached}, best {state.best:.2f} in epoch {state.best_epoch}")
                # Last, so that an epoch counts as whole only when all it writes is there.
                state.save(folder / output.RESUME, identity)
    processes.barrier()


def train_epoch(task: Task, state: TrainState, loader: TrainBatches, epoch: int, epochs: int) -> dict[str, float]:
    """One pass over the loader: means of what the steps log, the last learning rate, seconds, pictures a second."""
    state.model.train()
    loader.set_epoch(epoch)
    meters, started = Meters(), time.perf_counter()
    before: tuple[Tensor, dict[str, Tensor], Any] | None = None  # loss, what is logged, and batch of the step before
    bar = progress(loader, len(loader), f"epoch {epoch + 1}/{epochs}")
    for batch in bar:
        loss, logged = task.step(batch)
        # The step before has ended by now: to ask for this one's loss would keep the card waiting for the next batch.
        stop_unless_finite(before, task, epoch)
        before = loss.detach(), logged, batch

        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        lr = float(state.scheduler.get_last_lr()[0])
        state.scheduler.step()
        if state.average:
            state.average.update_parameters(state.model)

        meters.update(**logged)
        bar.show(loss=loss.detach(), lr=lr)
    stop_unless_finite(before, task, epoch)
    seconds = time.perf_counter() - started
    pictures = len(loader) * loader.batch_size * processes.world_size()
    return meters.means() | {
        "lr": lr,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(pictures / seconds, 2),
    }


def stop_unless_finite(step: tuple[Tensor, dict[str, Tensor], Any] | None, task: Task, epoch: int) -> None:
    """Raise InputError with what was in the batch when a step's loss is no number to go on with."""
    if step is None or torch.isfinite(step[0]):
        return
    _, logged, batch = step
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in logged.items())
    raise InputError(
        f"the loss is not finite in epoch {epoch} ({values}); a lower learning rate or precision float32 may help. "
        f"The batch had {task.describe(batch)}"
    )


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential average of weights and buffers, to be updated after each step; None with decay 0."""
    if not decay:
        return None

    def step(average: Tensor, now: Tensor, _: Tensor | int) -> Tensor:
        # Whole numbers (positions, counters) have no average.
        return average.lerp(now, 1 - decay) if average.is_floating_point() else now

    return AveragedModel(model, avg_fn=step, use_buffers=True)
