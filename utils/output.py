"""The folder a run writes to. No torch here: the launcher looks at it before any process starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import InputError

BEST = "checkpoint_best.pth"
CONFIG = "config.yaml"
LOG = "log.txt"
RESULT = "result.json"
EXAMPLES = "examples.png"
RESUME = "resume.pth"
CURVES = "tensorboard"


def check_output(folder: Path, *, resume: bool, overwrite: bool, evaluate: bool) -> None:
    """Raise InputError where the folder holds a run already and nothing says what to do with it."""
    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one")
    if resume and evaluate:
        raise InputError("--resume goes on with a training, --evaluate does none; give one")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder} is a file; name a folder")
    found = _files_of_run(folder, evaluate)
    if found and not (resume or overwrite):
        way_out = "--overwrite" if evaluate else "--resume or --overwrite"
        raise InputError(f"{folder} already holds a run ({found[0].name}); give {way_out}, or another --output_dir")


def open_output(folder: Path, *, overwrite: bool, evaluate: bool) -> None:
    """Make the folder; with `overwrite` remove the files of the run in it (an evaluation's: its result alone)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            for file in _files_of_run(folder, evaluate):
                file.unlink()
    except OSError as error:
        raise InputError(f"--output_dir {folder} cannot be written ({error.strerror})") from None


def _files_of_run(folder: Path, evaluate: bool) -> list[Path]:
    if evaluate:
        return [file for file in (folder / RESULT, folder / EXAMPLES) if file.exists()]
    named = [folder / name for name in (CONFIG, LOG, RESULT, EXAMPLES, RESUME)]
    curves = sorted((folder / CURVES).glob("events.*"))
    return [file for file in named if file.exists()] + sorted(folder.glob("checkpoint_*.pth")) + curves


def differing_keys(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys in which two configs differ, apart from the number of loader workers."""
    return sorted(k for k in {*saved, *now} if saved.get(k) != now.get(k) and k != "num_workers")
