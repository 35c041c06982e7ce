"""A prior of one's own: train a scene classifier, measure it, and write the start file that `resnet_ckpt` takes.

Runs under `run.py`, under torchrun, or alone as one process.
"""

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dataset.classification import (
    LabelledPicture,
    SceneSet,
    read_scenes,
    scene_train_loader,
)
from dataset.loaders import TrainLoader, evaluation_images_loader
from dataset.transforms import evaluation_transform, load_picture, train_transform
from models.classifier import SceneClassifier, load_start_file_state, start_file_state
from models.start_files import load_prior_start
from optim import create_optimizer
from scheduler import create_scheduler
from utils import checkpoint, output, processes
from utils.arguments import run_parser
from utils.averaging import averaged
from utils.config import process_batch
from utils.confusion import accuracy, class_accuracies, confusion_matrix, draw_confusion
from utils.epochs import run_epochs
from utils.errors import InputError, run_cli
from utils.logs import Meters, progress, say, write_json
from utils.normalisation import normalise
from utils.precision import bf16_used
from utils.prior_config import PriorConfig, prior_config_from_file
from utils.resume import Training


class Run(NamedTuple):
    """What every part of the training needs to know of it."""

    config: PriorConfig
    output_dir: Path
    seed: int
    batch_size: int  # of training, per process
    device: torch.device
    bf16: bool
    scenes: SceneSet


def main() -> None:
    """Train and measure the best epoch on the test split, or with --evaluate only measure a start file written here."""
    args = parse()
    config = prior_config_from_file(args.config, args.override)
    batch_size = process_batch(config.batch_size_train, args.bs, processes.announced_world_size())
    device = processes.start_run(args)

    scenes = read_scenes(config)
    run = Run(config, args.output_dir, args.seed, batch_size, device, bf16_used(config.precision, device), scenes)
    torch.manual_seed(args.seed)  # the same random weights on every process
    model = build_classifier(config, len(scenes.classes)).to(device)
    for split, source in scenes.sources.items():
        say(f"{split}: {len(getattr(scenes, split))} pictures of {len(scenes.classes)} classes, {source}")
    resuming = args.resume and (args.output_dir / output.RESUME).exists()
    if args.evaluate:
        load_prior(model, args.checkpoint, scenes.classes)
    elif not resuming:
        if config.start:
            say(str(load_prior_start(model.encoder.backbone, config.start, download=args.download)))
        check_pictures([*scenes.train, *scenes.val, *scenes.test])
    loader = None if args.evaluate else configured_train_loader(run)
    processes.barrier()
    if args.overwrite and processes.is_main():  # only now that everything is known to be there
        output.remove_run(args.output_dir, evaluate=args.evaluate, weights=args.checkpoint or config.start)

    training = None
    if loader:
        training = train(run, model, loader, resuming)
        load_prior(model, args.output_dir / output.PRIOR, scenes.classes)
    split = "test" if scenes.test else "val"
    write_result(run, evaluate(run, model, getattr(scenes, split), split), split, training)
    processes.stop()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = run_parser(__doc__)
    parser.add_argument("--checkpoint", help=f"the {output.PRIOR} to evaluate")
    args = parser.parse_args()
    if args.evaluate and not args.checkpoint:
        raise InputError(f"--evaluate needs weights: give --checkpoint FILE, a {output.PRIOR}")
    if args.checkpoint and not args.evaluate:
        raise InputError("--checkpoint goes with --evaluate; what training starts from is the config's 'start'")
    return args


def build_classifier(config: PriorConfig, classes: int) -> SceneClassifier:
    """The classifier of a config, random weights."""
    c = config
    model = SceneClassifier(
        c.backbone, classes, image_res=c.image_res, trained_stages=c.trained_stages, fixed_bn=c.fixed_bn
    )
    if c.optimizer.lr_mult_heads:
        model.init_params = ["head.weight", "head.bias"]
    return model


def load_prior(model: SceneClassifier, file: str | Path, classes: Sequence[str]) -> None:
    """Fill the whole classifier from a start file written here, whose classes must be these."""
    content = checkpoint.read_torch_file(file)
    state = checkpoint.state_dict_in(content, file)
    if content.get("classes") != list(classes):
        raise InputError(f"{file} does not name these {len(classes)} classes; give a {output.PRIOR} of the same data")
    load_start_file_state(model, state)


def check_pictures(pictures: Sequence[LabelledPicture]) -> None:
    """Decode every picture once, each process its share: the last is otherwise met when training is over."""
    share = pictures[processes.rank() :: processes.world_size()]
    for picture in progress(share, len(share), "checking pictures"):
        load_picture(picture.image)


def configured_train_loader(run: Run) -> TrainLoader:
    """This process's share of the training pictures."""
    c = run.config
    return scene_train_loader(
        run.scenes.train,
        transform=train_transform(c.image_res, randaugment_ops=c.randaugment_ops, quarter_turns=c.quarter_turns),
        batch_size=run.batch_size,
        num_workers=c.num_workers,
        seed=run.seed,
        rank=processes.rank(),
        world_size=processes.world_size(),
        pin_memory=run.device.type == "cuda",
    )


def train(run: Run, model: SceneClassifier, loader: TrainLoader, resuming: bool) -> Training:
    """Train for the config's epochs and write `prior.pth` of the epoch with the best top-1 on validation."""
    c = run.config
    optimizer = create_optimizer(c.optimizer, model)
    scheduler = create_scheduler(c.schedular, optimizer, steps_per_epoch=len(loader))
    training = Training(model, averaged(model, c.average_decay), optimizer, scheduler)
    parallel = DistributedDataParallel(model) if processes.world_size() > 1 else model
    run_epochs(
        training,
        run.output_dir,
        epochs=c.schedular.epochs,
        seed=run.seed,
        config=c.to_dict(),
        # A folder of pictures that has changed is another split, with validation pictures in training.
        identity={"batch of a process": run.batch_size, "the pictures found": fingerprint(run.scenes)},
        resuming=resuming,
        train_epoch=lambda epoch: train_epoch(run, training, parallel, loader, epoch),
        evaluate=lambda best_model: accuracy(evaluate(run, best_model, run.scenes.val, "val")),
        split="val",
        figure="top1",
        keep=lambda epoch, better: save_prior(run, training.best_model) if better else None,
    )
    return training


def fingerprint(scenes: SceneSet) -> str:
    """A number of the pictures, their classes and their splits."""
    return hashlib.sha256(repr(scenes).encode()).hexdigest()


def train_epoch(
    run: Run, training: Training, model: torch.nn.Module, loader: TrainLoader, epoch: int
) -> dict[str, float]:
    """One pass over the loader through `model`, the training's or its parallel wrapper.

    Returns mean loss and top-1 of this process, the last learning rate, seconds and pictures a second.
    """
    model.train()
    loader.set_epoch(epoch)
    meters, started = Meters(), time.perf_counter()
    bar = progress(loader, len(loader), f"epoch {epoch + 1}/{run.config.schedular.epochs}")
    for batch in bar:
        images = normalise(batch.images.to(run.device, non_blocking=True))  # [B, 3, H, W]
        labels = batch.labels.to(run.device, non_blocking=True)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
            scores = model(images).float()  # [B, C]
        loss = F.cross_entropy(scores, labels, label_smoothing=run.config.label_smoothing)
        stop_unless_finite(loss, [run.scenes.train[i].image for i in batch.indices[:5].tolist()], epoch)

        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        lr = training.scheduler.get_last_lr()[0]
        training.scheduler.step()
        if training.average:
            training.average.update_parameters(training.model)

        meters.update(loss=loss.detach(), top1=100 * (scores.argmax(dim=1) == labels).float().mean())
        bar.show(loss=loss.detach(), lr=lr)
    seconds = time.perf_counter() - started
    pictures = len(loader) * run.batch_size * processes.world_size()
    return meters.means() | {
        "lr": lr,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(pictures / seconds, 2),
    }


def stop_unless_finite(loss: Tensor, first_pictures: Sequence[str], epoch: int) -> None:
    """Raise InputError with what was in the batch when the loss is no number to go on with."""
    if not torch.isfinite(loss):
        raise InputError(
            f"the loss is {loss.item():.4g} in epoch {epoch}, not finite; a lower learning rate or precision float32 "
            f"may help. The batch's first pictures: {', '.join(first_pictures)}"
        )


@torch.inference_mode()
def evaluate(run: Run, model: SceneClassifier, pictures: Sequence[LabelledPicture], split: str) -> Tensor:
    """What is recognised as what, counts `[C, C]` on every process, each of which looks at its share once."""
    c = run.config
    model.eval()
    loader = evaluation_images_loader(
        [picture.image for picture in pictures],
        evaluation_transform(c.image_res),
        c.batch_size_test,
        c.num_workers,
        rank=processes.rank(),
        world_size=processes.world_size(),
        pin_memory=run.device.type == "cuda",
    )
    labels = torch.tensor([picture.label for picture in pictures], device=run.device)
    classes = len(run.scenes.classes)
    matrix = torch.zeros(classes, classes, dtype=torch.long, device=run.device)
    for positions, images in progress(loader, len(loader), f"classifying {split}"):
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
            scores = model(normalise(images.to(run.device, non_blocking=True)))  # [b, C]
        if not scores.isfinite().all():
            raise InputError("scores are not all finite: the weights are damaged or training diverged")
        matrix += confusion_matrix(labels[positions.to(run.device)], scores.argmax(dim=1), classes)
    return processes.gather_uneven(matrix).view(-1, classes, classes).sum(dim=0)


def save_prior(run: Run, model: SceneClassifier) -> None:
    """Write the start file: the weights in their published layout, the class names and the config."""
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in start_file_state(model).items()}
    content = {"model": state, "classes": list(run.scenes.classes), "config": run.config.to_dict()}
    checkpoint.save(run.output_dir / output.PRIOR, content)


def write_result(run: Run, matrix: Tensor, split: str, training: Training | None) -> None:
    """Write `result.json` and `confusion.png`, and print the accuracy. training: None where there was none."""
    if not processes.is_main():
        return
    scenes, figures, of_class = run.scenes, accuracy(matrix), matrix.sum(dim=1).tolist()
    libraries = (torch, torchvision, timm, np, PIL)
    result = {
        **figures,
        "split": split,
        "pictures": sum(of_class),
        "per_class": {
            name: {"accuracy": percent, "pictures": count}
            for name, percent, count in zip(scenes.classes, class_accuracies(matrix), of_class, strict=True)
        },
        "classes": list(scenes.classes),
        "splits": {name: {"pictures": len(getattr(scenes, name)), "from": x} for name, x in scenes.sources.items()},
        "epoch": training.best_epoch if training else None,
        "val_top1": training.best if training else None,  # of that epoch
        "seed": run.seed,
        "processes": processes.world_size(),
        "batch_size": run.batch_size * processes.world_size(),
        "config": run.config.to_dict(),
        "versions": {library.__name__: library.__version__ for library in libraries},
    }
    write_json(run.output_dir / output.RESULT, result)
    title = f"{split} split, {sum(of_class)} pictures, top-1 {figures['top1']:.2f} %"
    draw_confusion(run.output_dir / output.CONFUSION, matrix, scenes.classes, title=title)
    say(f"{split}: top-1 {figures['top1']:.2f}, mean of the classes {figures['mean_per_class']:.2f}")
    say(f"results in {run.output_dir}")


if __name__ == "__main__":
    run_cli(main)
