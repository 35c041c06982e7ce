"""The training loop, whatever is trained: a retrieval model or a scene classifier."""

import argparse
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from utils import output, processes
from utils.config import process_batch
from utils.config_parts import SchedularConfig
from utils.errors import InputError
from utils.files import file_checksum
from utils.logs import Curves, Meters, append_line, append_text, progress, say
from utils.train_state import Model, TrainState, waiting_for
from utils.typed import write_yaml


class TrainConfig(Protocol):
    """What the loop reads of a config, whatever else it holds."""

    @property
    def batch_size_train(self) -> int:
        """Per process."""

    @property
    def precision(self) -> str:
        """As `Precision` names it."""

    @property
    def schedular(self) -> SchedularConfig:
        """Epochs and learning rates."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML."""


Step = tuple[Callable[[], bool], dict[str, Tensor], Any]  # whether its loss is finite, what is logged, its batch

ConfigKind = TypeVar("ConfigKind", bound=TrainConfig)
Model_contra = TypeVar("Model_contra", bound=nn.Module, contravariant=True)  # of a task, which only takes models


@dataclass(frozen=True)
class Run(Generic[ConfigKind]):
    """What every part of a training or an evaluation needs to know of it."""

    config: ConfigKind
    output_dir: Path
    seed: int
    device: torch.device
    autocast: torch.dtype | None  # that the model computes in where that is not float32
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
    kept: str  # the file with the best epoch's weights

    def step(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, with its graph, and the values whose means over the epoch are logged."""

    def describe(self, batch: Any) -> str:
        """What is in a batch, for a person to look at."""

    def evaluate(self, model: Model_contra) -> dict[str, float]:
        """Figures of a model on the split, the same on every process."""

    def write(self, model: Model_contra, file: Path) -> None:
        """Write a model's weights, on the main process; all must ask, as each may hold a part of them."""


def start_run(args: argparse.Namespace, config: ConfigKind) -> Run[ConfigKind]:
    """Start this process on its device, with `--output_dir` made and free for what the arguments ask.

    Raises InputError where the folder holds a run already or cannot be written, and for a `--bs` that does not divide.
    """
    batch_size = process_batch(config.batch_size_train, args.bs, processes.announced_world_size())
    epochs = 0 if args.evaluate else config.schedular.epochs
    asked = {"resume": args.resume, "overwrite": args.overwrite, "evaluate": args.evaluate}
    output.check_output(args.output_dir, **asked, epochs=epochs)
    device = processes.start(args.device)
    processes.use_published_settings(device, config.precision)
    if processes.is_main():
        output.open_output(args.output_dir)
        output.lock(args.output_dir)
    processes.barrier()
    output.wait_for_output(args.output_dir)
    resuming = args.resume and (args.output_dir / output.RESUME).exists()
    if args.resume and not resuming:
        say(f"{args.output_dir} holds no whole epoch yet: starting from the beginning")
    autocast = processes.autocast_dtype(config.precision, device)
    # As it is trained and saved; both kinds of config are dataclasses, which a Protocol cannot say.
    config = replace(cast(Any, config), batch_size_train=batch_size)
    return Run(config, args.output_dir, args.seed, device, autocast, resuming)


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
    identity |= {"--seed": run.seed, "processes": processes.world_size()}
    best_file = folder / task.kept
    if run.resuming:
        state.restore(folder / output.RESUME, identity)
        if processes.is_main():
            state.restore_best(best_file)
        say(f"going on with epoch {state.next_epoch + 1}/{epochs}")
    if processes.is_main():
        write_yaml(config, folder / output.CONFIG)
        from utils.resumed_log import truncate_log  # here: an evaluation goes on with no log

        truncate_log(folder / output.LOG, state.next_epoch)

    with Curves(folder / output.CURVES if processes.is_main() else None) as curves:
        for epoch in range(state.next_epoch, epochs):
            # An epoch draws the same dropout whether or not the run was interrupted before it.
            torch.manual_seed(run.seed + 1000 * (epoch + 1) + processes.rank())
            trained = train_epoch(task, state, loader, epoch, epochs)
            processes.broadcast_buffers(state.evaluated_model)
            figures = task.evaluate(state.evaluated_model)

            state.next_epoch = epoch + 1
            state.seconds += trained["seconds"]
            better = torch.tensor([int(figures[task.figure] > state.best)], device=run.device)
            best = bool(processes.gather_uneven(better)[0])  # rank 0's word: another may see a tie otherwise
            if best:
                state.best_epoch, state.best = epoch, figures[task.figure]
                task.write(state.evaluated_model, waiting_for(best_file))
            if processes.is_main():
                if best:
                    state.best_sha256 = file_checksum(waiting_for(best_file))
                line = {f"train_{name}": value for name, value in trained.items()}
                line |= {f"{task.split}_{name}": value for name, value in figures.items()}
                append_line(folder / output.LOG, line | {"epoch": epoch, "best_epoch": state.best_epoch})
                curves.add(trained, epoch, "train/")
                curves.add(figures, epoch, f"{task.split}/")
                reached = f"{task.split} {task.figure} {figures[task.figure]:.2f}"
                say(f"epoch {epoch}: {reached}, best {state.best:.2f} in epoch {state.best_epoch}")
            # Late, so that an epoch counts as whole only when all it writes is there; the best weights then follow.
            state.save(folder / output.RESUME, identity)
            if best and processes.is_main():
                os.replace(waiting_for(best_file), best_file)
    if processes.is_main():
        append_text(folder / output.LOG, f"best epoch: {state.best_epoch}\n")  # as the released code ends its log
    processes.barrier()


def train_epoch(task: Task, state: TrainState, loader: TrainBatches, epoch: int, epochs: int) -> dict[str, float]:
    """One pass over the loader: means of what the steps log, the last learning rate, seconds, pictures a second."""
    state.model.train()
    loader.set_epoch(epoch)
    meters, started = Meters(), time.perf_counter()
    ended, waited = started, 0.0  # when the last step ended; seconds spent waiting for the loader
    before: Step | None = None
    bar = progress(loader, len(loader), f"epoch {epoch + 1}/{epochs}", from_first=True)
    for batch in bar:
        waited += time.perf_counter() - ended
        loss, logged = task.step(batch)
        # Of the step before: to ask for this one's loss would keep the card waiting for the next batch.
        stop_unless_finite(before, task, epoch)
        before = finite_later(loss.detach()), logged, batch

        state.scaler.scale(loss).backward()
        if state.clip_grad_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), state.clip_grad_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()  # now: gradients that are kept to the next backward take memory beside its forward
        lr = float(state.scheduler.get_last_lr()[0])
        state.scheduler.step()
        if state.average:
            state.average.update_parameters(state.model)

        meters.update(**logged)
        bar.show(loss=loss.detach(), lr=lr, data_seconds=waited, **processes.card_memory(loss.device))
        ended = time.perf_counter()
    stop_unless_finite(before, task, epoch)
    seconds = time.perf_counter() - started
    pictures = len(loader) * loader.batch_size * processes.world_size()
    return meters.means() | {
        "lr": lr,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(pictures / seconds, 2),
    }


def finite_later(loss: Tensor) -> Callable[[], bool]:
    """Ask now whether a loss is finite, to read the answer later, when only work queued before now is waited for."""
    finite = torch.isfinite(loss)
    if not finite.is_cuda:
        return lambda: bool(finite)
    answer = torch.empty((), dtype=torch.bool, pin_memory=True)
    answer.copy_(finite, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def read() -> bool:
        copied.synchronize()
        return bool(answer)

    return read


def stop_unless_finite(step: Step | None, task: Task, epoch: int) -> None:
    """Raise InputError with what was in the batch when a step's loss is no number to go on with."""
    if step is None or step[0]():
        return
    _, logged, batch = step
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in logged.items())
    raise InputError(
        f"the loss is not finite in epoch {epoch} ({values}); a lower learning rate or precision float32 may help. "
        f"The batch had {task.describe(batch)}"
    )
