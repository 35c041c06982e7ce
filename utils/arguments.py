"""The command line that every training has, and how a run starts from it."""

import argparse
from pathlib import Path

import torch

from utils import distributed, output


def run_parser(description: str | None, *, config_required: bool = True) -> argparse.ArgumentParser:
    """A parser of the arguments that trainings share; a script adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", required=config_required)
    add("--output_dir", type=Path, required=True)
    add("--bs", type=int, help="global batch, over all processes (default: the config's, per process)")
    add("--seed", type=int, default=42)
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--evaluate", action="store_true", help="evaluate --checkpoint, without training")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="change a config value; repeatable")
    add("--resume", action="store_true", help="go on with the run in --output_dir")
    add("--overwrite", action="store_true", help="replace the run in --output_dir")
    add("--download", action="store_true", help="allow start files to be downloaded")
    return parser


def start_run(args: argparse.Namespace) -> torch.device:
    """Start this process on its device, with `--output_dir` there for all and free for what the arguments ask.

    Raises InputError where it holds a run already or cannot be written.
    """
    output.check_output(args.output_dir, resume=args.resume, overwrite=args.overwrite, evaluate=args.evaluate)
    device = distributed.start(args.device)
    if distributed.is_main():
        output.open_output(args.output_dir)
    distributed.barrier()
    output.wait_for_output(args.output_dir)
    return device
