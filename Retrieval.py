"""The experiment: build the parts from a config, then train or evaluate.

Runs under `run.py`, under torchrun, or alone as one process.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import timm
import torch
import torchvision
import transformers
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from dataset.annotations import EvaluationSet, read_evaluation, read_train
from dataset.retrieval import TrainBatch, caption_batches, evaluation_images_loader, train_loader
from dataset.scenes import draw_scenes
from dataset.tokenizer import load_tokenizer
from dataset.transforms import evaluation_transform, train_transform
from models import build_model
from models.embedding import embed_captions, embed_images
from models.losses import total_loss
from models.pir import PIR
from models.released import load_released, released_state_dict
from models.start_files import load_prior_start, load_text_start, load_vision_start, resolve_start
from optim import create_optimizer
from scheduler import create_scheduler
from utils import checkpoint, distributed, output
from utils.config import Config, config_from_file, process_batch
from utils.errors import InputError, run_cli
from utils.examples import draw_examples
from utils.logs import Curves, Meters, append_line, progress, say, truncate_log, write_json
from utils.metrics import recall, retrieval_ranks
from utils.normalisation import normalise
from utils.precision import bf16_used
from utils.resume import Training
from utils.typed import write_yaml


class Run(NamedTuple):
    """What every part of the experiment needs to know of it."""

    config: Config
    output_dir: Path
    seed: int
    batch_size: int  # of training, per process
    device: torch.device
    bf16: bool
    tokenizer: PreTrainedTokenizerBase


class Measured(NamedTuple):
    """An evaluation: the seven figures and the embeddings they come from."""

    figures: dict[str, float]
    image_embeds: Tensor  # [I, D]
    text_embeds: Tensor  # [T, D]


def main() -> None:
    """Train and measure the best epoch on the test split, or with --evaluate only measure a checkpoint."""
    args = parse()
    config = config_from_file(args.config, args.override)
    batch_size = process_batch(config.batch_size_train, args.bs, distributed.announced_world_size())
    output.check_output(args.output_dir, resume=args.resume, overwrite=args.overwrite, evaluate=args.evaluate)
    device = distributed.start(args.device)
    if distributed.is_main():
        output.open_output(args.output_dir)
        draw_configured_scenes(config)
    distributed.barrier()
    output.wait_for_output(args.output_dir)

    torch.manual_seed(args.seed)  # the same random weights on every process
    model = build_model(config).to(device)
    tokenizer = load_configured_tokenizer(config, args.download)
    run = Run(config, args.output_dir, args.seed, batch_size, device, bf16_used(config.precision, device), tokenizer)
    test_set = read_evaluation(config.test_file, config.image_root)
    weights = args.checkpoint or args.load_ckpt_from
    resuming = args.resume and (args.output_dir / output.RESUME).exists()
    if not resuming:
        start_from(model, config, weights, args.download)
    if not args.evaluate:
        loader = configured_train_loader(run)
        val_set = read_evaluation(config.val_file, config.image_root)
    distributed.barrier()
    if args.overwrite and distributed.is_main():  # only now that everything is known to be there
        output.remove_run(args.output_dir, evaluate=args.evaluate, weights=weights)

    best_epoch = None
    if not args.evaluate:
        best_epoch = train(run, model, loader, {"val": val_set, "test": test_set}, resuming)
        load_released(model, checkpoint.read_checkpoint(args.output_dir / output.BEST))
    write_result(run, evaluate(run, model, test_set), test_set, best_epoch)
    distributed.stop()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", required=True)
    add("--output_dir", type=Path, required=True)
    add("--bs", type=int, help="global batch, over all processes (default: the config's, per process)")
    add("--seed", type=int, default=42)
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--checkpoint", help="trained weights to evaluate, or to start from")
    add("--load_ckpt_from", help="pre-trained weights to start from")
    add("--evaluate", action="store_true", help="evaluate --checkpoint, without training")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="change a config value; repeatable")
    add("--resume", action="store_true", help="go on with the run in --output_dir")
    add("--overwrite", action="store_true", help="replace the run in --output_dir")
    add("--download", action="store_true", help="allow start files to be downloaded")
    args = parser.parse_args()
    if args.evaluate and not args.checkpoint:
        raise InputError("--evaluate needs weights: give --checkpoint FILE")
    if args.checkpoint and args.load_ckpt_from:
        raise InputError("--checkpoint and --load_ckpt_from both name weights to start from; give one")
    return args


def draw_configured_scenes(config: Config) -> None:
    """Draw the demo's data set where the config asks for one and it is not there yet."""
    if config.scenes:
        sizes = asdict(config.scenes)
        draw_scenes(sizes.pop("folder"), **sizes)


def load_configured_tokenizer(config: Config, download: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of the config, its vocabulary checked against the text encoder's."""
    if config.tokenizer_folder is None:
        raise InputError("config: 'text_encoder' is null, so 'tokenizer' must name a folder with a vocabulary")
    return load_tokenizer(resolve_start(config.tokenizer_folder, download=download), config.text_sizes["vocab_size"])


def configured_train_loader(run: Run) -> DataLoader:
    """This process's share of the training captions, or pictures with several captions each."""
    c = run.config
    return train_loader(
        read_train(c.train_file, c.image_root, labels_required=c.use_affil_loss),
        transform=train_transform(c.image_res, randaugment_ops=c.randaugment_ops, quarter_turns=c.quarter_turns),
        tokenizer=run.tokenizer,
        batch_size=run.batch_size,
        captions_per_image=c.captions_per_image,
        num_workers=c.num_workers,
        seed=run.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        # As released, a caption in training is not cut at max_tokens, only where the positions end.
        max_length=c.text_sizes["max_position_embeddings"],
        pin_memory=run.device.type == "cuda",
    )


def start_from(model: PIR, config: Config, weights: str | None, download: bool) -> None:
    """Fill the model from trained weights, or each encoder from its start file (null: left random)."""
    if weights:
        say(f"{weights}: {load_released(model, checkpoint.read_checkpoint(weights))}")
        return
    if config.vision_start:
        say(str(load_vision_start(model.vision_encoder.backbone, config.vision_start, download=download)))
    if config.resnet_ckpt and not config.is_baseline:
        say(str(load_prior_start(model.instruction_encoder.backbone, config.resnet_ckpt, download=download)))
    if config.text_encoder:
        say(str(load_text_start(model.text_encoder, config.text_encoder, download=download)))


def train(run: Run, model: PIR, loader: DataLoader, sets: dict[str, EvaluationSet], resuming: bool) -> int:
    """Train for the config's epochs; returns the epoch that was best on the split the config selects on.

    Writes `config.yaml`, and each epoch `checkpoint_best.pth` (when it is), a line of `log.txt`, curves and
    `resume.pth`; at the end `checkpoint_{last}.pth`.
    """
    c, epochs = run.config, run.config.schedular.epochs
    optimizer = create_optimizer(c.optimizer, model)
    steps = math.ceil(len(loader.dataset) / (run.batch_size * distributed.world_size()))
    scheduler = create_scheduler(c.schedular, optimizer, steps_per_epoch=steps, epochs=epochs)
    average = (
        AveragedModel(model, avg_fn=moving_average(c.average_decay), use_buffers=True) if c.average_decay else None
    )
    training = Training(model, average, optimizer, scheduler)
    identity = {k: v for k, v in c.to_dict().items() if k != "num_workers"}
    identity |= {"--seed": run.seed, "batch of a process": run.batch_size, "processes": distributed.world_size()}
    if resuming:
        training.restore(run.output_dir / output.RESUME, identity)
        say(f"going on with epoch {training.next_epoch} of {epochs}")
    if distributed.is_main():
        write_yaml(c.to_dict(), run.output_dir / output.CONFIG)
        truncate_log(run.output_dir / output.LOG, training.next_epoch)
    if c.select_on == "test":
        say("warning: the best epoch is chosen on the test split, as released; 'select_on: val' does not")

    # A timm backbone of one's own may have parameters behind its feature map, which get no gradient.
    options = {"find_unused_parameters": c.vision_sizes.backbone is not None}
    parallel = DistributedDataParallel(model, **options) if distributed.world_size() > 1 else model
    curves = Curves(run.output_dir / output.CURVES if distributed.is_main() else None)
    for epoch in range(training.next_epoch, epochs):
        # An epoch draws the same dropout whether or not the run was interrupted before it.
        torch.manual_seed(run.seed + 1000 * (epoch + 1) + distributed.rank())
        trained = train_epoch(run, training, parallel, loader, epoch)
        distributed.broadcast_buffers(training.best_model)
        figures = evaluate(run, training.best_model, sets[c.select_on]).figures
        training.next_epoch = epoch + 1
        better = figures["r_mean"] > training.best
        if better:
            training.best_epoch, training.best = epoch, figures["r_mean"]
        if distributed.is_main():
            if better:
                save_model(run, training.best_model, output.BEST)
            line = {f"train_{k}": v for k, v in trained.items()} | {f"{c.select_on}_{k}": v for k, v in figures.items()}
            append_line(run.output_dir / output.LOG, line | {"epoch": epoch, "best_epoch": training.best_epoch})
            curves.add(trained, epoch, "train/")
            curves.add(figures, epoch, f"{c.select_on}/")
            best = f"best {training.best:.2f} in epoch {training.best_epoch}"
            say(f"epoch {epoch}: {c.select_on} r_mean {figures['r_mean']:.2f}, {best}")
            if epoch == epochs - 1:
                save_model(run, training.best_model, f"checkpoint_{epoch}.pth")
            # Last, so that an epoch counts as whole only when all it writes is there.
            training.save(run.output_dir / output.RESUME, identity)
    curves.close()
    distributed.barrier()
    return training.best_epoch


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The exponential average of weights and buffers; whole numbers (positions, counters) are copied."""
    return lambda average, now, _: average.lerp(now, 1 - decay) if average.is_floating_point() else now


def train_epoch(
    run: Run, training: Training, model: torch.nn.Module, loader: DataLoader, epoch: int
) -> dict[str, float]:
    """One pass over the loader through `model`, the training's or its parallel wrapper.

    Returns mean losses, the last learning rate, seconds and pictures a second.
    """
    model.train()
    loader.sampler.set_epoch(epoch)
    meters, started = Meters(), time.perf_counter()
    bar = progress(loader, len(loader), f"epoch {epoch + 1}/{run.config.schedular.epochs}")
    for batch in bar:
        images = normalise(batch.images.to(run.device, non_blocking=True))  # [B, 3, H, W]
        ids, mask, idx = (x.to(run.device, non_blocking=True) for x in (batch.ids, batch.attention_mask, batch.idx))
        label = None if batch.label is None else batch.label.to(run.device, non_blocking=True)

        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
            losses = model(images, ids, mask, idx=idx, label=label)
        loss = total_loss(losses, run.config.center_factor)
        stop_unless_finite(loss, losses, batch, epoch)

        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        lr = training.scheduler.get_last_lr()[0]
        training.scheduler.step()
        if training.average:
            training.average.update_parameters(training.model)

        meters.update(**{name: value.detach() for name, value in losses.items()})
        bar.show(loss=loss.detach(), lr=lr)
    seconds = time.perf_counter() - started
    pictures = len(loader) * run.batch_size * distributed.world_size()
    return meters.means() | {
        "lr": lr,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(pictures / seconds, 2),
    }


def stop_unless_finite(loss: Tensor, losses: dict[str, Tensor], batch: TrainBatch, epoch: int) -> None:
    """Raise InputError with what was in the batch when the loss is no number to go on with."""
    if not torch.isfinite(loss):
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
        first = "; ".join(
            f"picture {i}: {c!r}" for i, c in zip(batch.idx.tolist()[:5], batch.captions[:5], strict=True)
        )
        raise InputError(
            f"the loss is not finite in epoch {epoch} ({values}); a lower learning rate or precision float32 may help. "
            f"The batch had {len(batch.captions)} captions, first {first}"
        )


def evaluate(run: Run, model: PIR, evaluation_set: EvaluationSet) -> Measured:
    """Embed the pictures and captions, each process its share once, and count ranks (SPEC 6)."""
    c, share = run.config, {"rank": distributed.rank(), "world_size": distributed.world_size()}
    model.eval()
    pictures = evaluation_images_loader(
        evaluation_set,
        evaluation_transform(c.image_res),
        c.batch_size_test,
        c.num_workers,
        pin_memory=run.device.type == "cuda",
        **share,
    )
    captions = caption_batches(
        evaluation_set.captions,
        run.tokenizer,
        c.batch_size_test_text,
        c.max_tokens,
        group_by_length=c.mask_padding,  # with padding attended an embedding depends on its batch, as released
        **share,
    )
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
        images = progress(pictures, len(pictures), "embedding pictures")
        image_embeds = embed_images(model, images, len(evaluation_set.images), run.device)
        texts = progress(captions, len(captions), "embedding captions")
        text_embeds = embed_captions(model, texts, len(evaluation_set.captions), run.device)
    try:
        ranks = retrieval_ranks(image_embeds, text_embeds, evaluation_set.own_image_of_text)
    except ValueError as error:
        raise InputError(f"{error}: the weights are damaged or training diverged") from None
    return Measured(recall(*ranks), image_embeds, text_embeds)


def save_model(run: Run, model: PIR, name: str) -> None:
    """Write the weights in the released layout."""
    checkpoint.save_checkpoint(run.output_dir / name, released_state_dict(model), run.config.to_dict())


def write_result(run: Run, measured: Measured, test_set: EvaluationSet, best_epoch: int | None) -> None:
    """Write `result.json` and `examples.png`, and print the seven figures."""
    if not distributed.is_main():
        return
    libraries = (torch, torchvision, timm, transformers, np, PIL)
    result = {
        **measured.figures,
        "split": "test",
        "test_file": run.config.test_file,
        "pictures": len(test_set.images),
        "captions": len(test_set.captions),
        "epoch": best_epoch,
        "seed": run.seed,
        "processes": distributed.world_size(),
        "batch_size": run.batch_size * distributed.world_size(),
        "config": run.config.to_dict(),
        "versions": {library.__name__: library.__version__ for library in libraries},
    }
    write_json(run.output_dir / output.RESULT, result)
    draw_examples(
        run.output_dir / output.EXAMPLES,
        images=test_set.images,
        captions=test_set.captions,
        own_image_of_text=test_set.own_image_of_text,
        image_embeds=measured.image_embeds.cpu(),
        text_embeds=measured.text_embeds.cpu(),
        title=f"test split, r_mean {measured.figures['r_mean']:.2f}",
    )
    say("test: " + ", ".join(f"{name} {value:.2f}" for name, value in measured.figures.items()))
    say(f"results in {run.output_dir}")


if __name__ == "__main__":
    run_cli(main)
