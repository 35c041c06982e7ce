"""The log that a run which goes on finds in its folder."""

import json
from pathlib import Path

from utils.errors import InputError
from utils.files import check_regular, write_whole


def truncate_log(file: Path, epochs: int) -> None:
    """Keep the lines of epochs below `epochs` (from 0), whole or not at all; a missing log stays missing.

    A last line that a crash cut short is dropped. Raises InputError for any other line without a whole `epoch`.
    """
    if not file.exists():
        return
    check_regular(file)
    lines = file.read_bytes().splitlines()
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            epoch = json.loads(line)["epoch"]
            if type(epoch) is not int:
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            if number == len(lines):
                break
            raise InputError(f"{file} line {number} is no JSON line with an epoch; mend or remove it") from None
        if epoch < epochs:
            kept.append(line + b"\n")
    write_whole(file, b"".join(kept))
