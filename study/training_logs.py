"""The `log.txt` of trainings, this code's or the released one's."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from study.plan import FIGURES

FIGURE_KEY = re.compile(rf"(?:(\w+)_)?({'|'.join(FIGURES)})")


@dataclass(frozen=True)
class TrainingLog:
    """What a log says of each epoch."""

    means: Mapping[str, Mapping[int, float]]  # split -> epoch -> mean recall, percent
    losses: Mapping[str, Mapping[int, float]]  # loss -> epoch -> its mean over the epoch
    skipped: int  # lines that are no JSON of an epoch


def read_log(file: Path) -> TrainingLog:
    """Read a JSON line an epoch: `{split}_r_mean`, or the six figures it is the mean of, and whatever has `loss` in it.

    Numbers may be written as text; other keys are left aside, and so are lines that are no JSON. A line without
    `epoch` counts as the one after the line before.
    """
    means: dict[str, dict[int, float]] = defaultdict(dict)
    losses: dict[str, dict[int, float]] = defaultdict(dict)
    skipped, epoch = 0, -1
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        values = _numbers(line)
        if values is None:
            skipped += bool(line.strip()) and not re.fullmatch(r"best epoch: \d+", line)  # a log's last line
            continue
        epoch = int(values.get("epoch", epoch + 1))
        for split, mean in _means(values).items():
            means[split][epoch] = mean
        for key, value in values.items():
            if "loss" in key:
                losses[key.removeprefix("train_").removeprefix("loss_")][epoch] = value
    return TrainingLog(dict(means), dict(losses), skipped)


def _numbers(line: str) -> dict[str, float] | None:
    """The finite numbers of a JSON line by their keys; None where it is no JSON object."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    numbers = {}
    for key, value in values.items():
        with suppress(TypeError, ValueError, OverflowError):
            if not isinstance(value, bool) and math.isfinite(float(value)):
                numbers[key] = float(value)
    return numbers


def _means(values: Mapping[str, float]) -> dict[str, float]:
    """Split -> mean recall of an epoch's line, as written or from the six figures; "" is named `mean`."""
    six: dict[str, list[float]] = defaultdict(list)
    means = {}
    for key, value in values.items():
        if found := FIGURE_KEY.fullmatch(key):
            split = found[1] or "mean"
            if found[2] == "r_mean":
                means[split] = value
            else:
                six[split].append(value)
    return {split: sum(each) / 6 for split, each in six.items() if len(each) == 6} | means
