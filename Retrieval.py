"""The experiment: build the parts from a config, then train or evaluate.

Runs under `run.py`, under torchrun, or alone as one process.
"""

import argparse
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerBase

from dataset.annotations import EvaluationSet, read_evaluation
from dataset.cache import PictureCache
from dataset.drawn.scenes import draw_scenes
from dataset.loaders import Load, TrainBatch, TrainLoader, caption_batches, evaluation_images_loader
from dataset.tokenizer import load_tokenizer
from dataset.train_set import TrainSet, read_train_set
from dataset.transforms import evaluation_transform, load_picture, train_transform
from models import build_model
from models.embedding import embed_captions, embed_images
from models.losses import total_loss
from models.pir import PIR
from models.released import load_released, released_state_dict
from models.start_files import load_prior_start, load_text_start, load_vision_start, resolve_start
from optim import create_optimizer
from scheduler import create_scheduler
from utils import checkpoint, output, processes
from utils.arguments import run_parser
from utils.averaging import averaged
from utils.config import Config, config_from_file, process_batch
from utils.costs import count_parameters, peak_memory, train_seconds
from utils.epochs import run_epochs
from utils.errors import InputError, run_cli
from utils.examples import draw_examples
from utils.files import file_checksum
from utils.logs import Meters, progress, say, write_json
from utils.metrics import recall, retrieval_ranks
from utils.normalisation import normalise
from utils.precision import bf16_used
from utils.result_files import Measured, library_versions, write_arrays
from utils.resume import Training


class Run(NamedTuple):
    """What every part of the experiment needs to know of it."""

    config: Config
    output_dir: Path
    seed: int
    batch_size: int  # of training, per process
    device: torch.device
    bf16: bool
    tokenizer: PreTrainedTokenizerBase
    load: Load = load_picture  # how a picture is read: from its file, or from the cache


def main() -> None:
    """Train and measure the best epoch on the test split, or with --evaluate only measure a checkpoint."""
    args = parse()
    config = config_from_file(args.config, args.override)
    batch_size = process_batch(config.batch_size_train, args.bs, processes.announced_world_size())
    device = processes.start_run(args)
    if processes.is_main():
        draw_configured_scenes(config)
    processes.barrier()

    torch.manual_seed(args.seed)  # the same random weights on every process
    model = build_model(config).to(device)
    tokenizer = load_configured_tokenizer(config, args.download)
    bf16 = bf16_used(config.precision, device)
    cache = PictureCache(args.cache, config.image_root) if args.cache else None
    load = cache.load if cache else load_picture
    run = Run(config, args.output_dir, args.seed, batch_size, device, bf16, tokenizer, load)
    sets = {"test": read_evaluation(config.test_file, config.image_root)}
    images = list(sets["test"].images)
    weights = args.checkpoint or args.load_ckpt_from
    resuming = args.resume and (args.output_dir / output.RESUME).exists()
    if not resuming:
        start_from(model, config, weights, args.download)
    if not args.evaluate:
        train_set = read_train_set(config.train_file, config.image_root, labels_required=config.use_affil_loss)
        loader = configured_train_loader(run, train_set)
        sets["val"] = read_evaluation(config.val_file, config.image_root)
        images += [*sets["val"].images, *train_set.images]
    if cache:
        cache.open(images)
    processes.barrier()
    if args.overwrite and processes.is_main():  # only now that everything is known to be there
        output.remove_run(args.output_dir, evaluate=args.evaluate, weights=weights)

    best_epoch = None
    if not args.evaluate:
        best_epoch = train(run, model, loader, sets, resuming)
        weights = args.output_dir / output.BEST
        load_released(model, checkpoint.read_checkpoint(weights))
    weights_sha256 = file_checksum(Path(weights))  # now: a training that goes on may replace the file meanwhile
    measured = evaluate(run, model, sets["test"], average_orientations=config.average_orientations)
    write_result(run, model, measured, sets["test"], best_epoch, weights_sha256)
    processes.stop()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = run_parser(__doc__, config_required=False)
    add = parser.add_argument
    add("--checkpoint", help="trained weights to evaluate, with a folder its best by its config; or to start from")
    add("--load_ckpt_from", help="pre-trained weights to start from")
    add("--cache", type=Path, metavar="DIR", help="keep the pictures decoded there, where every process can read them")
    args = parser.parse_args()
    if args.evaluate and not args.checkpoint:
        raise InputError("--evaluate needs weights: give --checkpoint FILE or FOLDER")
    if args.checkpoint and args.load_ckpt_from:
        raise InputError("--checkpoint and --load_ckpt_from both name weights to start from; give one")
    if args.evaluate:
        args.config = args.config or output.config_in(args.checkpoint)
    if not args.config:
        raise InputError("--config FILE is missing; only --evaluate on a published folder brings its own")
    args.checkpoint, args.load_ckpt_from = output.weights_in(args.checkpoint), output.weights_in(args.load_ckpt_from)
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


def configured_train_loader(run: Run, train_set: TrainSet) -> TrainLoader:
    """This process's share of the training captions, or pictures with several captions each."""
    c = run.config
    return train_set.loader(
        load=run.load,
        transform=train_transform(c.image_res, randaugment_ops=c.randaugment_ops, quarter_turns=c.quarter_turns),
        tokenizer=run.tokenizer,
        batch_size=run.batch_size,
        captions_per_image=c.captions_per_image,
        num_workers=c.num_workers,
        seed=run.seed,
        rank=processes.rank(),
        world_size=processes.world_size(),
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
    if config.resnet_ckpt and config.has_vir:
        say(str(load_prior_start(model.instruction_encoder.backbone, config.resnet_ckpt, download=download)))
    if config.text_encoder:
        say(str(load_text_start(model.text_encoder, config.text_encoder, download=download)))


def train(run: Run, model: PIR, loader: TrainLoader, sets: dict[str, EvaluationSet], resuming: bool) -> int:
    """Train for the config's epochs; returns the epoch that was best on the split the config selects on.

    Writes `config.yaml`, and each epoch `checkpoint_best.pth` (when it is), a line of `log.txt`, curves and
    `resume.pth`; at the end `checkpoint_{last}.pth`.
    """
    c, epochs = run.config, run.config.schedular.epochs
    optimizer = create_optimizer(c.optimizer, model)
    steps = math.ceil(loader.entries / (run.batch_size * processes.world_size()))
    scheduler = create_scheduler(c.schedular, optimizer, steps_per_epoch=steps, epochs=epochs)
    training = Training(model, averaged(model, c.average_decay), optimizer, scheduler)
    if c.select_on == "test":
        say("warning: the best epoch is chosen on the test split, as released; 'select_on: val' does not")

    # A timm backbone of one's own may have parameters behind its feature map, which get no gradient.
    options = {"find_unused_parameters": c.vision_sizes.backbone is not None}
    parallel = DistributedDataParallel(model, **options) if processes.world_size() > 1 else model

    def keep(epoch: int, better: bool) -> None:
        if better:
            save_model(run, training.best_model, output.BEST)
        if epoch == epochs - 1:
            save_model(run, training.best_model, f"checkpoint_{epoch}.pth")

    identity = {"batch of a process": run.batch_size}
    run_epochs(
        training,
        run.output_dir,
        epochs=epochs,
        seed=run.seed,
        config=c.to_dict(),
        identity=identity | ({"num_workers": c.num_workers} if loader.workers_matter else {}),
        resuming=resuming,
        train_epoch=lambda epoch: train_epoch(run, training, parallel, loader, epoch),
        evaluate=lambda best_model: evaluate(run, best_model, sets[c.select_on]).figures,
        split=c.select_on,
        figure="r_mean",
        keep=keep,
    )
    return training.best_epoch


def train_epoch(
    run: Run, training: Training, model: torch.nn.Module, loader: TrainLoader, epoch: int
) -> dict[str, float]:
    """One pass over the loader through `model`, the training's or its parallel wrapper.

    Returns mean losses, the last learning rate, seconds and pictures a second.
    """
    model.train()
    loader.set_epoch(epoch)
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
    pictures = len(loader) * run.batch_size * processes.world_size()
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


def evaluate(run: Run, model: PIR, evaluation_set: EvaluationSet, *, average_orientations: bool = False) -> Measured:
    """Embed the pictures and captions, each process its share once, and count ranks (SPEC 6)."""
    c, share = run.config, {"rank": processes.rank(), "world_size": processes.world_size()}
    model.eval()
    pictures = evaluation_images_loader(
        evaluation_set.images,
        evaluation_transform(c.image_res),
        c.batch_size_test,
        c.num_workers,
        pin_memory=run.device.type == "cuda",
        load=run.load,
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
        image_embeds = embed_images(
            model, images, len(evaluation_set.images), run.device, average_orientations=average_orientations
        )
        texts = progress(captions, len(captions), "embedding captions")
        text_embeds = embed_captions(model, texts, len(evaluation_set.captions), run.device)
    try:
        ranks = retrieval_ranks(image_embeds, text_embeds, evaluation_set.own_image_of_text)
    except ValueError as error:
        raise InputError(f"{error}: the weights are damaged or training diverged") from None
    return Measured(recall(*ranks), *ranks, image_embeds, text_embeds)


def save_model(run: Run, model: PIR, name: str) -> None:
    """Write the weights in the released layout."""
    checkpoint.save_checkpoint(run.output_dir / name, released_state_dict(model), run.config.to_dict())


def write_result(
    run: Run, model: PIR, measured: Measured, test_set: EvaluationSet, best_epoch: int | None, weights_sha256: str
) -> None:
    """Write what an evaluation leaves, `result.json` last, which says that it is all there; print the figures."""
    memory = peak_memory(run.device)
    if not processes.is_main():
        return
    write_arrays(
        run.output_dir,
        measured,
        own_image_of_text=test_set.own_image_of_text,
        names=test_set.names,
        labels=test_set.labels,
        label_names=test_set.label_names,
    )
    draw_examples(
        run.output_dir / output.EXAMPLES,
        images=test_set.images,
        captions=test_set.captions,
        own_image_of_text=test_set.own_image_of_text,
        image_embeds=measured.image_embeds.cpu(),
        text_embeds=measured.text_embeds.cpu(),
        title=f"test split, r_mean {measured.figures['r_mean']:.2f}",
    )
    result = {
        **measured.figures,
        "split": "test",
        "test_file": run.config.test_file,
        "pictures": len(test_set.images),
        "captions": len(test_set.captions),
        "epoch": best_epoch,
        "weights_sha256": weights_sha256,
        "seed": run.seed,
        "processes": processes.world_size(),
        "batch_size": run.batch_size * processes.world_size(),
        "parameters": count_parameters(model),
        "train_seconds": None if best_epoch is None else train_seconds(run.output_dir / output.LOG),
        "peak_memory_bytes": memory,
        "config": run.config.to_dict(),
        "versions": library_versions(),
    }
    write_json(run.output_dir / output.RESULT, result)
    say("test: " + ", ".join(f"{name} {value:.2f}" for name, value in measured.figures.items()))
    say(f"results in {run.output_dir}")


if __name__ == "__main__":
    run_cli(main)
