"""A prior of one's own: train a scene classifier, measure it, and write the start file that `resnet_ckpt` takes.

Runs under `run.py`, under torchrun, or alone as one process.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from utils.arguments import prior_arguments, read_first

    read_first(prior_arguments)

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.classification import LabelledPicture, SceneBatch, SceneSet, read_scenes, scene_train_loader
from dataset.evaluation_loaders import evaluation_images_loader
from dataset.loaders import TrainLoader
from dataset.pictures import PictureRule, load_picture, picture_rule
from dataset.transforms import evaluation_transform, train_transform
from models.classifier import SceneClassifier, load_start_file_state, start_file_state
from models.encoders import normalise
from models.start_files import load_prior_start
from optim import create_optimizer
from scheduler import create_scheduler
from utils import checkpoint, output, processes
from utils.announce import announce
from utils.confusion import accuracy, class_accuracies, confusion_matrix, draw_confusion
from utils.cost import card_settings, library_versions
from utils.errors import InputError, run_cli
from utils.files import file_checksum
from utils.logs import progress, say, write_json
from utils.prior_config import PriorConfig, prior_config_from_file
from utils.train_state import TrainState, averaged, gradient_scaler
from utils.training import Run, start_run, train


def main() -> None:
    """Train and measure the best epoch on the test split, or with --evaluate only measure a start file written here."""
    from utils.arguments import prior_arguments  # here, as who imports this script's parts has no command line

    args = prior_arguments()
    config = prior_config_from_file(args.config, args.override)
    run = start_run(args, config)
    announce(run, args)

    scenes = read_scenes(config)
    torch.manual_seed(args.seed)  # the same random weights on every process
    model = build_classifier(config, len(scenes.classes)).to(run.device)
    for split, source in scenes.sources.items():
        say(f"{split}: {len(getattr(scenes, split))} pictures of {len(scenes.classes)} classes, {source}")
    if args.evaluate:
        load_prior(model, args.checkpoint, scenes.classes)
    elif not run.resuming:
        if config.start:
            say(str(load_prior_start(model.encoder.backbone, config.start, download=args.download)))
        check_pictures([*scenes.train, *scenes.val, *scenes.test], picture_rule(config))
    loader = None if args.evaluate else configured_train_loader(run, scenes)
    processes.barrier()
    if args.overwrite and processes.is_main():  # only now that everything is known to be there
        from utils.earlier import remove_run

        remove_run(args.output_dir, evaluate=args.evaluate, reads=[args.checkpoint, config.start])

    state = None
    if loader:
        state = train_classifier(run, model, loader, scenes)
        load_prior(model, args.output_dir / output.PRIOR, scenes.classes)
    split = "test" if scenes.test else "val"
    matrix = evaluate(run, model, getattr(scenes, split), split)
    write_result(run, scenes, matrix, split, state)
    output.unlock(args.output_dir)
    processes.stop()


def build_classifier(config: PriorConfig, classes: int) -> SceneClassifier:
    """The classifier of a config, random weights."""
    c = config
    model = SceneClassifier(
        c.backbone,
        classes,
        image_res=c.image_res,
        own_normalisation=c.normalisation == "own",
        trained_stages=c.trained_stages,
        fixed_bn=c.fixed_bn,
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


def check_pictures(pictures: Sequence[LabelledPicture], rule: PictureRule) -> None:
    """Decode every picture once, each process its share: the last is otherwise met when training is over."""
    share = pictures[processes.rank() :: processes.world_size()]
    for picture in progress(share, len(share), "checking pictures"):
        load_picture(picture.image, rule)


def configured_train_loader(run: Run[PriorConfig], scenes: SceneSet) -> TrainLoader:
    """This process's share of the training pictures."""
    c = run.config
    return scene_train_loader(
        scenes.train,
        transform=train_transform(c.image_res, randaugment_ops=c.randaugment_ops, quarter_turns=c.quarter_turns),
        rule=picture_rule(c),
        batch_size=run.config.batch_size_train,
        num_workers=c.num_workers,
        seed=run.seed,
        rank=processes.rank(),
        world_size=processes.world_size(),
        pin_memory=run.device.type == "cuda",
    )


def train_classifier(
    run: Run[PriorConfig], model: SceneClassifier, loader: TrainLoader, scenes: SceneSet
) -> TrainState:
    """Train for the config's epochs and write `prior.pth` of the epoch with the best top-1 on validation."""
    c = run.config
    optimizer = create_optimizer(c.optimizer, model)
    scheduler = create_scheduler(c.schedular, optimizer, steps_per_epoch=len(loader))
    scaler = gradient_scaler(run.device, run.autocast)
    average, longest = averaged(model, c.average_decay), c.optimizer.clip_grad_norm
    state = TrainState(model, average, optimizer, scheduler, scaler=scaler, clip_grad_norm=longest)
    # A folder of pictures that has changed is another split, with validation pictures in training.
    train(SceneTask(run, model, scenes), state, loader, run, {"the pictures found": fingerprint(scenes)})
    return state


def fingerprint(scenes: SceneSet) -> str:
    """A number of the pictures, by name and content, their classes and their splits."""
    total = hashlib.sha256(repr(scenes).encode())
    for picture in (*scenes.train, *scenes.val, *scenes.test):
        total.update(file_checksum(Path(picture.image)).encode())
    return total.hexdigest()


class SceneTask:
    """The classifier as the training loop sees it."""

    split, figure, kept = "val", "top1", output.PRIOR

    def __init__(self, run: Run[PriorConfig], model: SceneClassifier, scenes: SceneSet) -> None:
        self.run, self.scenes = run, scenes
        self.model = processes.in_parallel(model)

    def step(self, batch: SceneBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch to minimise; it and this process's top-1 are logged."""
        images = normalise(batch.images.to(self.run.device, non_blocking=True))  # [B, 3, H, W]
        labels = batch.labels.to(self.run.device, non_blocking=True)
        with processes.autocast(self.run.autocast, self.run.device):
            scores = self.model(images).float()  # [B, C]
        loss = F.cross_entropy(scores, labels, label_smoothing=self.run.config.label_smoothing)
        top1 = 100 * (scores.argmax(dim=1) == labels).float().mean()
        return loss, {"loss": loss.detach(), "top1": top1}

    def describe(self, batch: SceneBatch) -> str:
        """The first pictures of a batch."""
        return "the pictures " + ", ".join(self.scenes.train[i].image for i in batch.indices[:5].tolist())

    def evaluate(self, model: SceneClassifier) -> dict[str, float]:
        """Accuracies on the validation pictures."""
        return accuracy(evaluate(self.run, model, self.scenes.val, "val"))

    def write(self, model: SceneClassifier, file: Path) -> None:
        """Write the start file that `resnet_ckpt` takes."""
        save_prior(file, model, self.scenes.classes, self.run.config)


def save_prior(file: Path, model: SceneClassifier, classes: Sequence[str], config: PriorConfig) -> None:
    """Write the start file: the weights in their published layout, the class names and the config."""
    if not processes.is_main():
        return
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in start_file_state(model).items()}
    content = {"model": state, "classes": list(classes), "config": config.to_dict()}
    checkpoint.save(file, content)


@torch.inference_mode()
def evaluate(run: Run[PriorConfig], model: SceneClassifier, pictures: Sequence[LabelledPicture], split: str) -> Tensor:
    """What is recognised as what, counts `[C, C]` on every process, each of which looks at its share once."""
    c, classes = run.config, model.head.out_features
    model.eval()
    loader = evaluation_images_loader(
        [picture.image for picture in pictures],
        evaluation_transform(c.image_res),
        c.batch_size_test,
        c.num_workers,
        rank=processes.rank(),
        world_size=processes.world_size(),
        pin_memory=run.device.type == "cuda",
        load=partial(load_picture, rule=picture_rule(c)),
    )
    labels = torch.tensor([picture.label for picture in pictures], device=run.device)
    matrix = torch.zeros(classes, classes, dtype=torch.long, device=run.device)
    for positions, images in progress(loader, len(loader), f"classifying {split}"):
        with processes.autocast(run.autocast, run.device):
            scores = model(normalise(images.to(run.device, non_blocking=True)))  # [b, C]
        if not scores.isfinite().all():
            raise InputError("scores are not all finite: the weights are damaged or training diverged")
        matrix += confusion_matrix(labels[positions.to(run.device)], scores.argmax(dim=1), classes)
    return processes.gather_uneven(matrix).view(-1, classes, classes).sum(dim=0)


def write_result(run: Run[PriorConfig], scenes: SceneSet, matrix: Tensor, split: str, state: TrainState | None) -> None:
    """Write `result.json` and `confusion.png`, and print the accuracy. state: None where nothing was trained."""
    if not processes.is_main():
        return
    if state is None:
        from utils.earlier import keep_evaluation

        keep_evaluation(run)
    figures, of_class = accuracy(matrix), matrix.sum(dim=1).tolist()
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
        "epoch": state.best_epoch if state else None,
        "val_top1": state.best if state else None,  # of that epoch
        "seed": run.seed,
        "processes": processes.world_size(),
        "batch_size": run.config.batch_size_train * processes.world_size(),
        "config": run.config.to_dict(),
        "cuda": card_settings(run.device),
        "versions": library_versions(),
    }
    write_json(run.output_dir / output.RESULT, result)
    title = f"{split} split, {sum(of_class)} pictures, top-1 {figures['top1']:.2f} %"
    draw_confusion(run.output_dir / output.CONFUSION, matrix, scenes.classes, title=title)
    say(f"{split}: top-1 {figures['top1']:.2f}, mean of the classes {figures['mean_per_class']:.2f}")
    say(f"results in {run.output_dir}")


if __name__ == "__main__":
    run_cli(main)
