"""What an earlier run left in a folder: its evaluation kept beside a later one's, or all of it removed."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from utils.errors import InputError
from utils.output import CONFIG, EARLIER, OF_EVALUATION, RESULT, files_of_run
from utils.training import Run
from utils.typed import write_yaml


def keep_evaluation(run: Run) -> None:
    """Before an evaluation's files: keep an earlier one's, and write this one's config where no training's is."""
    keep_earlier(run.output_dir)
    if not (run.output_dir / CONFIG).exists():
        write_yaml(run.config.to_dict(), run.output_dir / CONFIG)


def keep_earlier(folder: Path) -> None:
    """Move an earlier evaluation's files out of the next one's way, to a folder named by its data and weights."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        name = f"{Path(str(result.get('test_file', result.get('split')))).stem}_{str(result.get('weights_sha256'))[:8]}"
    except (OSError, ValueError, AttributeError):
        return  # there is none
    place, number = folder / EARLIER / name, 1
    while place.exists():
        number += 1
        place = folder / EARLIER / f"{name}_{number}"
    place.mkdir(parents=True)
    for file in (*OF_EVALUATION, CONFIG):
        if (folder / file).exists():
            os.replace(folder / file, place / file)


def remove_run(folder: Path, *, evaluate: bool, reads: Sequence[str | None]) -> None:
    """Remove the files of the run in the folder (an evaluation's: what it found alone).

    reads: what this run is about to read. Raises InputError, with nothing removed, where that is among the files.
    """
    files = files_of_run(folder, evaluate)
    found = {file.resolve() for file in files}
    for name in reads:
        if name and Path(name).resolve() in found:
            raise InputError(f"--overwrite would remove {name}, which this run starts from; give another --output_dir")
    for file in files:
        file.unlink()
