"""The `log.txt` of trainings, this code's or the released one's, read and drawn."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from study.plan import FIGURES
from utils.plots import png_figure

Curve = Mapping[int, float]  # epoch -> value

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, told apart by all
GREY = "#6b6b6b"
ROW_INCHES = 2.7


@dataclass(frozen=True)
class TrainingLog:
    """What a log says of each epoch."""

    means: Mapping[str, Curve]  # split -> mean recall, percent
    losses: Mapping[str, Curve]  # loss -> its mean over the epoch
    skipped: int  # lines that are no JSON of an epoch


@dataclass(frozen=True)
class LogToDraw:
    """A row of the picture."""

    name: str
    log: TrainingLog
    published: float | None  # mean recall, percent


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
            skipped += bool(line.strip())
            continue
        epoch = int(values.get("epoch", epoch + 1))
        for split, mean in _means(values).items():
            means[split][epoch] = mean
        for key, value in values.items():
            if "loss" in key:
                losses[key.removeprefix("train_").removeprefix("loss_")][epoch] = value
    return TrainingLog(dict(means), dict(losses), skipped)


def draw_logs(file: Path, logs: Sequence[LogToDraw]) -> None:
    """Write a PNG with a row a log: mean recall over epochs beside the published one, and the losses."""
    with png_figure(file, 11, ROW_INCHES * len(logs) + 0.3, dpi=110) as figure:
        for row, (left, right) in zip(logs, figure.subplots(len(logs), 2, squeeze=False), strict=True):
            left.set_title(row.name, loc="left", fontsize=11, fontweight="bold")
            _draw_curves(left, row.log.means, "mean recall, %", mark_best=True)
            if row.published is not None:
                left.axhline(row.published, color=GREY, linestyle="--", linewidth=1)
                label = f"published {row.published:.2f}"
                left.plot([], [], color=GREY, linestyle="--", linewidth=1, label=label)
            _draw_curves(right, row.log.losses, "training loss", mark_best=False)
            for axes in (left, right):
                if axes.get_legend_handles_labels()[0]:
                    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
                else:
                    axes.text(0.5, 0.5, "not in the log", transform=axes.transAxes, ha="center", color=GREY)
                    axes.set(xticks=[], yticks=[])


def _draw_curves(axes: Axes, curves: Mapping[str, Curve], what: str, *, mark_best: bool) -> None:
    for number, (name, curve) in enumerate(curves.items()):
        colour, epochs = COLOURS[number % len(COLOURS)], sorted(curve)
        best = max(epochs, key=lambda epoch: curve[epoch])
        label = f"{name}, best {curve[best]:.2f}" if mark_best else name
        marker = "." if len(epochs) == 1 else ""
        axes.plot(epochs, [curve[epoch] for epoch in epochs], color=colour, linewidth=1.5, marker=marker, label=label)
        if mark_best:
            axes.plot([best], [curve[best]], color=colour, marker="o", markersize=5)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(what, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _numbers(line: str) -> dict[str, float] | None:
    """The finite numbers of a JSON line by their keys; None where it is no JSON object."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    numbers = {key: _number(value) for key, value in values.items()}
    return {key: number for key, number in numbers.items() if number is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _means(values: Mapping[str, float]) -> dict[str, float]:
    """Split -> mean recall of an epoch's line, as written or from the six figures; "" is named `mean`."""
    six: dict[str, list[float]] = defaultdict(list)
    means = {}
    for key, value in values.items():
        if found := re.fullmatch(r"(?:(\w+)_)?(" + "|".join(FIGURES) + ")", key):
            split = found[1] or "mean"
            if found[2] == "r_mean":
                means[split] = value
            else:
                six[split].append(value)
    return {split: sum(each) / 6 for split, each in six.items() if len(each) == 6} | means
