"""Command lines: mistakes reported in one line, and the arguments that every training has. No torch here."""

import argparse
from pathlib import Path
from typing import NoReturn

from utils.errors import InputError


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


def run_parser(description: str | None, *, config_required: bool = True) -> argparse.ArgumentParser:
    """A parser of the arguments that trainings share; a script adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=name, required=config_required)
    add("--output_dir", type=named_path, required=True)
    add("--bs", type=int, help="global batch, over all processes (default: the config's, per process)")
    add("--seed", type=int, default=42)
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--evaluate", action="store_true", help="evaluate --checkpoint, without training")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="change a config value; repeatable")
    add("--resume", action="store_true", help="go on with the run in --output_dir")
    add("--overwrite", action="store_true", help="replace the run in --output_dir")
    add("--download", action="store_true", help="allow start files to be downloaded")
    return parser
