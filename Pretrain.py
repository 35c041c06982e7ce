"""The first stage: contrastive pre-training on tar shards, counted in steps; `Retrieval.py --load_ckpt_from` goes on.

Runs under `run.py`, under torchrun, or alone as one process.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from utils.arguments import pretrain_arguments, read_first

    read_first(pretrain_arguments)

from functools import partial

import torch

from dataset.annotations import read_evaluation
from dataset.loaders import TrainLoader
from dataset.pictures import picture_rule
from dataset.resampled_shards import check_sources, files_of, resampled_loader
from dataset.transforms import train_transform
from models.build import build_model
from models.compiling import compile_encoders
from models.embedder import Embedder, configured_tokenizer, pixels_of
from models.filling import start_from
from models.retrieval_task import start_training
from utils import output, processes
from utils.announce import announce
from utils.arguments import pretrain_arguments
from utils.config import Config
from utils.earlier import remove_run
from utils.errors import run_cli
from utils.logs import say
from utils.pretrain_config import PretrainConfig, pretrain_config_from_file
from utils.training import Run, start_run, train


def main() -> None:
    """Pre-train for the config's steps; the weights that were best on the validation set are kept."""
    args = pretrain_arguments()
    pretraining, config = pretrain_config_from_file(args.config, args.override)
    run = start_run(args, config)
    announce(run, args)

    torch.manual_seed(args.seed)  # the same random weights on every process
    model = build_model(config).to(run.device)
    tokenizer = configured_tokenizer(config, download=args.download)
    load = partial(pixels_of, rule=picture_rule(config))
    embedder = Embedder(model, config, tokenizer, run.device, run.autocast, load, config.num_workers)
    validation = read_evaluation(config.val_file, config.image_root)
    loader = configured_loader(run, pretraining, embedder)
    if not run.resuming:
        start_from(model, config, args.load_ckpt_from, download=args.download)
    if config.compile:
        compile_encoders(model, run.device)
    processes.barrier()
    if args.overwrite and processes.is_main():  # only now that everything is known to be there
        remove_run(args.output_dir, evaluate=False, reads=[args.load_ckpt_from, *config.encoder_starts])

    task, state = start_training(run, embedder, pretraining.evaluate_every, validation)
    weights = [source.weight for source in pretraining.sources]
    train(task, state, loader, run, {"steps": pretraining.steps, "weights": weights, "num_workers": config.num_workers})
    best = (state.best_epoch + 1) * pretraining.evaluate_every
    say(f"{args.output_dir / output.BEST} is of step {best}: Retrieval.py goes on from it by --load_ckpt_from")
    if processes.is_main():
        output.unlock(args.output_dir)
    processes.stop()


def configured_loader(run: Run[Config], pretraining: PretrainConfig, embedder: Embedder) -> TrainLoader:
    """This process's pictures of the sources, `evaluate_every` batches at a time."""
    c = run.config
    sources = [(files_of(source.shards), source.weight) for source in pretraining.sources]
    if processes.is_main():
        check_sources(sources, picture_rule(c), skip_bad=c.on_bad_picture == "skip")
    return resampled_loader(
        sources,
        transform=train_transform(c.image_res, randaugment_ops=c.randaugment_ops, quarter_turns=c.quarter_turns),
        tokenizer=embedder.tokenizer,
        max_length=c.text_config["max_position_embeddings"],
        steps=pretraining.evaluate_every,
        batch_size=c.batch_size_train,
        num_workers=c.num_workers,
        seed=run.seed,
        rank=processes.rank(),
        rule=picture_rule(c),
        skip_bad=c.on_bad_picture == "skip",
        pin_memory=run.device.type == "cuda",
    )


if __name__ == "__main__":
    run_cli(main)
