"""The epochs of a training, whatever is trained: each logged and evaluated, the best kept, all resumable."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils import output, processes
from utils.logs import Curves, append_line, say, truncate_log
from utils.resume import Training
from utils.typed import write_yaml


def run_epochs(
    training: Training,
    folder: Path,
    *,
    epochs: int,
    seed: int,
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    resuming: bool,
    train_epoch: Callable[[int], dict[str, float]],
    evaluate: Callable[[nn.Module], dict[str, float]],
    split: str,
    figure: str,
    keep: Callable[[int, bool], None],
) -> None:
    """Train the epochs that are left; `training.best_epoch` is then the one with the highest `figure` on `split`.

    Writes `config.yaml`, and each epoch a line of `log.txt`, curves and `resume.pth` to `folder`.
    config: plain values; identity: what, beside them, a run that is resumed must have been started with.
    train_epoch: trains one epoch by its number from 0 and returns what to log of it, under `train_`.
    evaluate: figures of a model on `split`, the same on every process.
    keep: called on process 0 after an epoch with its number and whether it is the best, to write the weights.
    """
    # The number of workers changes nothing of what is trained.
    identity = {k: v for k, v in config.items() if k != "num_workers"} | {"--seed": seed} | dict(identity)
    identity |= {"processes": processes.world_size()}
    if resuming:
        training.restore(folder / output.RESUME, identity)
        say(f"going on with epoch {training.next_epoch + 1}/{epochs}")
    if processes.is_main():
        write_yaml(config, folder / output.CONFIG)
        truncate_log(folder / output.LOG, training.next_epoch)

    curves = Curves(folder / output.CURVES if processes.is_main() else None)
    for epoch in range(training.next_epoch, epochs):
        # An epoch draws the same dropout whether or not the run was interrupted before it.
        torch.manual_seed(seed + 1000 * (epoch + 1) + processes.rank())
        trained = train_epoch(epoch)
        processes.broadcast_buffers(training.best_model)
        figures = evaluate(training.best_model)
        training.next_epoch = epoch + 1
        better = figures[figure] > training.best
        if better:
            training.best_epoch, training.best = epoch, figures[figure]
        if processes.is_main():
            keep(epoch, better)
            line = {f"train_{name}": value for name, value in trained.items()}
            line |= {f"{split}_{name}": value for name, value in figures.items()}
            append_line(folder / output.LOG, line | {"epoch": epoch, "best_epoch": training.best_epoch})
            curves.add(trained, epoch, "train/")
            curves.add(figures, epoch, f"{split}/")
            best = f"best {training.best:.2f} in epoch {training.best_epoch}"
            say(f"epoch {epoch}: {split} {figure} {figures[figure]:.2f}, {best}")
            # Last, so that an epoch counts as whole only when all it writes is there.
            training.save(folder / output.RESUME, identity)
    curves.close()
    processes.barrier()
