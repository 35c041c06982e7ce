"""The experiment: build the parts from a config, then train or evaluate.

Runs under `run.py`, under torchrun, or alone as one process.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from utils.arguments import read_first, retrieval_arguments

    read_first(retrieval_arguments)

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dataset.annotations import EvaluationSet, TrainRecord, read_evaluation, read_train
from dataset.loaders import TrainLoader, train_loader
from dataset.pictures import picture_rule
from dataset.transforms import train_transform
from models.build import build_model
from models.embedder import Embedder, configured_tokenizer, pixels_of
from models.retrieval import RetrievalModel
from models.retrieval_task import evaluate, start_training
from utils import output, processes
from utils.config import Config, config_from_file
from utils.errors import run_cli
from utils.files import file_checksum
from utils.logs import say
from utils.train_state import TrainState
from utils.training import Run, start_run, train


def main() -> None:
    """Train and measure the best epoch on the test split, or with --evaluate only measure a checkpoint."""
    from dataset import skipping, start_checks  # here, as who imports this script's parts has no use for them
    from utils.announce import announce
    from utils.arguments import retrieval_arguments

    args = retrieval_arguments()
    config = config_from_file(args.config, args.override)
    run = start_run(args, config)
    announce(run, args)
    start_checks.check_scenes(config)

    torch.manual_seed(args.seed)  # the same random weights on every process
    sharded = config.shard and (processes.world_size() > 1 or not args.evaluate)  # an evaluation alone is not
    model = build_model(config).to("cpu" if sharded else run.device)
    cache, rule = None, picture_rule(config)
    if args.cache:
        from dataset.cache import PictureCache

        cache = PictureCache(args.cache, config.image_root, rule, skip_bad=config.on_bad_picture == "skip")
    tokenizer = configured_tokenizer(config, download=args.download)
    load = cache.load if cache else partial(pixels_of, rule=rule)
    embedder = Embedder(model, config, tokenizer, run.device, run.autocast, load, config.num_workers)
    sets = {"test": read_evaluation(config.test_file, config.image_root)}
    pictures = list(sets["test"].images)
    given = args.checkpoint or args.load_ckpt_from
    from models.filling import add_lora, start_from

    if not run.resuming:
        start_from(model, config, given, strict=args.strict or args.evaluate, download=args.download)
    if config.lora and not args.evaluate:
        say(add_lora(model, config, given))
    if config.compile:
        from models.compiling import compile_encoders  # for those who ask for it

        compile_encoders(model, run.device)
    if sharded:
        from models.sharding import shard  # for encoders larger than a card

        embedder = shard(embedder)
    # Shards hold their own captions and are read as training goes.
    records = [] if args.evaluate or config.trains_from_shards else read_train(**config.training_files, say=say)
    if not args.evaluate:
        loader = configured_train_loader(run, embedder, records)
        sets["val"] = read_evaluation(config.val_file, config.image_root)
        pictures += [*sets["val"].images, *(record.image for record in records)]
    start_checks.look_over(config, records, sets, tokenizer, rule)
    if cache:
        cache.open(pictures)
    processes.barrier()
    if args.overwrite and processes.is_main():  # only now that everything is known to be there
        from utils.earlier import remove_run

        remove_run(args.output_dir, evaluate=args.evaluate, reads=[given, *config.encoder_starts])

    state = None
    if not args.evaluate:
        state = train_model(run, embedder, loader, sets[config.select_on], identity_of(config, given))
        if config.on_bad_picture == "skip":
            skipping.say_skipped(loader, run.device)
        given = args.output_dir / output.BEST
        start_from(model, config, str(given), strict=True, download=args.download)
    weights_sha256 = file_checksum(Path(given))  # now: a training that goes on may replace the file meanwhile
    from utils.results import write_result  # brings fonts and drawing, once at the end

    measured = evaluate(embedder, sets["test"], average_orientations=config.average_orientations)
    write_result(run, embedder.model, measured, sets["test"], embedder.load, state, weights_sha256)
    output.unlock(args.output_dir)
    processes.stop()


def configured_train_loader(run: Run[Config], embedder: Embedder, records: list[TrainRecord]) -> TrainLoader:
    """This process's share of the training captions, or pictures with several captions each."""
    c = run.config
    options: dict[str, Any] = {
        "transform": train_transform(c.image_res, randaugment_ops=c.randaugment_ops, quarter_turns=c.quarter_turns),
        "tokenizer": embedder.tokenizer,
        # As released, a caption in training is not cut at max_tokens, only where the positions end.
        "max_length": c.text_config["max_position_embeddings"],
        "batch_size": run.config.batch_size_train,
        "captions_per_image": c.captions_per_image,
        "num_workers": c.num_workers,
        "seed": run.seed,
        "rank": processes.rank(),
        "world_size": processes.world_size(),
        "pin_memory": run.device.type == "cuda",
        "skip_bad": c.on_bad_picture == "skip",
    }
    if c.trains_from_shards:
        from dataset.shard_loader import shard_loader  # brings webdataset, for those who train so
        from dataset.shards import read_shards

        shards = read_shards(c.train_file, labels_required=c.use_affil_loss)
        return shard_loader(shards, labels_required=c.use_affil_loss, rule=picture_rule(c), **options)
    return train_loader(records, load=embedder.load, **options)


def train_model(
    run: Run[Config],
    embedder: Embedder,
    loader: TrainLoader,
    evaluation_set: EvaluationSet,
    identity: Mapping[str, Any],
) -> TrainState[RetrievalModel]:
    """Train for the config's epochs; the state says which was best on the split that the config selects on.

    identity: what, beside the config, a run that is resumed must have been started with.

    Writes `config.yaml`, and each epoch `checkpoint_best.pth` (when it is), a line of `log.txt`, curves and
    `resume.pth`; at the end `checkpoint_{last}.pth`.
    """
    c = run.config
    if c.select_on == "test":
        say("warning: the best epoch is chosen on the test split, as released; 'select_on: val' does not")
    steps = math.ceil(loader.entries / (run.config.batch_size_train * processes.world_size()))
    task, state = start_training(run, embedder, steps, evaluation_set)
    if loader.workers_matter:
        identity = {**identity, "num_workers": c.num_workers}
    train(task, state, loader, run, identity)
    task.write(state.evaluated_model, run.output_dir / f"checkpoint_{c.schedular.epochs - 1}.pth")
    return state


def identity_of(config: Config, given: str | None) -> dict[str, str | None]:
    """Checksums of the files that decide what a training gives, of starts or the `given` weights; None: it is gone."""
    from dataset.shards import index_of  # an index stands for its shards
    from models.start_files import weights_of_start

    training = [index_of(name) if config.trains_from_shards else Path(name) for name in config.train_file]
    files: dict[str, Path | None] = {
        str(file): file for file in (*training, Path(config.val_file), Path(config.test_file))
    }
    files |= {name: weights_of_start(name) for name in ([given] if given else config.encoder_starts)}
    return {f"the content of {name}": file_checksum(file) if file else None for name, file in files.items()}


if __name__ == "__main__":
    run_cli(main)
