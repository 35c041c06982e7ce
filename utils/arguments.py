"""Command lines: mistakes reported in one line, and the arguments that every training has. No torch here."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from utils import output
from utils.announced import is_launched
from utils.errors import InputError, run_cli, shown

MOST_SEED = 2**32 - 1
WITHOUT_EFFECT = ("world_size", "dist_url", "distributed")  # arguments of the released code


class OneLineParser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help lists the arguments)")


def name(text: str) -> str:
    """An argument's type: a name that is not empty, as that of an unset variable of a shell is."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def named_path(text: str) -> Path:
    """An argument's type: a file or folder whose name is not empty; a Path takes that for the current folder."""
    return Path(name(text))


def weights(text: str) -> str | None:
    """An argument's type: weights, or one of the published launcher's ways to name none, `-1` and a blank."""
    return None if text in ("-1", " ") else name(text)


def seed(text: str) -> int:
    """An argument's type: a seed; the number of an epoch is added to it, and torch takes 64 bits."""
    if not text.isdecimal() or len(text) > 10 or int(text) > MOST_SEED:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no seed: give a whole number from 0 to {MOST_SEED}")
    return int(text)


def device(text: str) -> str:
    """An argument's type: where to compute."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device: give auto, cpu, cuda or cuda:N")
    return text


def run_parser(prog: str, description: str | None, *, config_required: bool = True) -> argparse.ArgumentParser:
    """A parser of the arguments that trainings share; a script adds its own."""
    parser = OneLineParser(prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=name, required=config_required)
    add("--output_dir", type=named_path, required=True)
    add("--bs", type=int, help="global batch, over all processes (default, and -1: the config's, per process)")
    add("--seed", type=seed, default=42)
    add("--device", type=device, default="auto", help="auto (the default), cpu, cuda, or one card alone, cuda:N")
    add("--evaluate", action="store_true", help="evaluate --checkpoint, without training")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="change a config value; repeatable")
    add("--resume", action="store_true", help="go on with the run in --output_dir")
    add("--overwrite", action="store_true", help="replace the run in --output_dir")
    add("--download", action="store_true", help="allow start files to be downloaded")
    add_precision(add)
    add("--local_rank", "--local-rank", type=int, help="as torch.distributed.launch gives it without --use_env")
    for of_released in WITHOUT_EFFECT:
        add(f"--{of_released}", nargs="?", const="", help="of the released code; has no effect")
    return parser


def add_precision(add: Callable[..., object]) -> None:
    """`--precision`, which stands for an override of the config."""
    add("--precision", **overriding("precision", "NAME"), help="float32, fp32, tf32, bf16, fp16 or auto")


def add_speed(add: Callable[..., object]) -> None:
    """The arguments of retrieval that stand for overrides of how fast it trains and in what memory."""
    add("--accumulate", **overriding("accumulate", "N"), help="embed a batch in N pieces, in the memory of one")
    for key, what in {
        "checkpoint_activations": "compute activations again for the gradient, instead of keeping them",
        "compile": "compile the encoders",
        "shard": "divide the model among the processes, for encoders larger than a card",
    }.items():
        add(f"--{key}", dest="override", action="append_const", const=f"{key}=True", help=what)


def overriding(key: str, metavar: str) -> dict[str, Any]:
    """An argument that is short for `--override KEY=VALUE`."""
    return {"dest": "override", "action": "append", "type": lambda value: f"{key}={name(value)}", "metavar": metavar}


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; `ignored` names the arguments without effect, LOCAL_RANK is set where `--local_rank` says it.

    Raises InputError for an impossible launch, which is told before anything is imported or read.
    """
    args = parser.parse_args()
    args.bs = None if args.bs == -1 else args.bs
    args.ignored = [of_released for of_released in WITHOUT_EFFECT if getattr(args, of_released) is not None]
    is_launched()
    if args.local_rank is not None and args.local_rank >= 0:  # -1 is the released code's "none"
        given = os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
        if given != str(args.local_rank):
            raise InputError(f"--local_rank {args.local_rank} contradicts LOCAL_RANK={given}: leave --local_rank out")
    return args


def retrieval_arguments() -> argparse.Namespace:
    """Retrieval.py's command line."""
    parser = run_parser(
        "Retrieval.py", "The experiment: build the parts from a config, then train or evaluate.", config_required=False
    )
    add = parser.add_argument
    add("--checkpoint", type=weights, help="weights to evaluate (a folder's best, by its config) or to start from")
    add("--load_ckpt_from", type=weights, help="pretrained weights to start from")
    add("--strict", action="store_true", help="start only from weights that are of this very model")
    add("--cache", type=named_path, metavar="DIR", help="keep the pictures decoded where every process can read them")
    add_speed(add)
    args = read_arguments(parser)
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


def prior_arguments() -> argparse.Namespace:
    """Prior.py's command line."""
    parser = run_parser("Prior.py", "Train a scene classifier, and write the start file that `resnet_ckpt` takes.")
    parser.add_argument("--checkpoint", type=weights, help=f"the {output.PRIOR} to evaluate")
    args = read_arguments(parser)
    if args.evaluate and not args.checkpoint:
        raise InputError(f"--evaluate needs weights: give --checkpoint FILE, a {output.PRIOR}")
    if args.checkpoint and not args.evaluate:
        raise InputError("--checkpoint goes with --evaluate; what training starts from is the config's 'start'")
    return args


def pretrain_arguments() -> argparse.Namespace:
    """Pretrain.py's command line."""
    parser = run_parser("Pretrain.py", "Contrastive pre-training on tar shards, counted in steps.")
    parser.add_argument("--load_ckpt_from", type=weights, help="weights to start from, in place of the encoders' own")
    args = read_arguments(parser)
    if args.evaluate:
        raise InputError("--evaluate is of Retrieval.py, which evaluates what this leaves")
    args.load_ckpt_from = output.weights_in(args.load_ckpt_from)
    return args


def read_first(parse: Callable[[], argparse.Namespace]) -> None:
    """Answer `--help` and mistakes of the command line at once, before a script imports what takes seconds."""
    try:
        parse()
    except InputError as error:
        mistake = error

        def report() -> None:
            raise mistake

        run_cli(report)
