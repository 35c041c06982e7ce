"""All figures: r_mean of rows, r_mean over a config key, a t-SNE map of embeddings, the curves of training logs."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.bootstrap import PERCENT
from study.plan import Curve
from study.results import Embedded
from study.summary import Summary
from study.training_logs import TrainingLog
from utils.plots import png_figure

# Okabe and Ito's colours, which the colour-blind see as different too; more than these nobody keeps apart.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
BLUE, VERMILION, SKY = PALETTE[0], PALETTE[1], PALETTE[5]
GRID, GREY, DARK = "#dddddd", "#c8c8c8", "#666666"
HOLLOW: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": VERMILION, "mew": 1.6, "markersize": 7}
DPI = 150
MEAN_RECALL = "mean of the six recalls, percent"
MEASURED, INTERVAL = "measured, mean over seeds", f"{PERCENT} % interval over test pictures"
PUBLISHED, ELSEWHERE = "published", "published, on another test set"
PERPLEXITY, SEED = 30, 0  # of t-SNE


@dataclass(frozen=True)
class LogToDraw:
    """A training's log, and what is published of it."""

    name: str
    log: TrainingLog
    published: float | None  # mean recall, percent


def draw_rows(file: Path, summaries: Sequence[Summary], title: str) -> bool:
    """r_mean of each row with its interval, its seeds and its published value; False (no file) with none of these."""
    if not any(s.means or "r_mean" in s.published for s in summaries):
        return False
    with png_figure(file, 8, 1.6 + 0.5 * len(summaries), dpi=DPI) as figure:
        axes = figure.subplots()
        for y, s in enumerate(summaries):
            axes.axhline(y, color=GRID, linewidth=0.8, zorder=0)
            if s.means:
                axes.plot(s.means["r_mean"], y, "o", color=BLUE, markersize=7, label=MEASURED)
            if s.interval:
                axes.plot(s.interval, (y, y), color=BLUE, linewidth=2.5, solid_capstyle="butt", label=INTERVAL)
            if len(s.runs) > 1:
                seeds = [run.figures.r_mean for run in s.runs]
                at = [y + 0.22] * len(seeds)
                axes.plot(seeds, at, "|", color=SKY, markersize=8, mew=1.8, label="measured, each seed")
            if "r_mean" in s.published:
                marker, label = ("D", PUBLISHED) if s.comparable else ("d", ELSEWHERE)
                axes.plot(s.published["r_mean"], y, marker, label=label, linestyle="none", **HOLLOW)
        names = [s.title if s.means else f"{s.title} (missing)" for s in summaries]
        axes.set_yticks(range(len(summaries)), [textwrap.fill(name, 34) for name in names])
        axes.set_ylim(len(summaries) - 0.5, -0.5)  # the first row on top
        axes.set_xlabel(MEAN_RECALL)
        axes.margins(x=0.06)
        _finish(figure, axes, title)
    return True


def draw_curve(file: Path, curve: Curve | None, summaries: Sequence[Summary], title: str) -> bool:
    """r_mean over the key's values, evenly spaced in their order; False (no file) with nothing to draw."""
    if curve is None:
        return False
    rows, values = {s.name: s for s in summaries}, sorted(set(curve.values.values()))
    points = sorted(((values.index(value), rows[row]) for row, value in curve.values.items()), key=lambda p: p[0])
    measured = [(x, s, s.means["r_mean"]) for x, s in points if s.means]
    published = [(x, s.published["r_mean"]) for x, s in points if "r_mean" in s.published]
    if not measured and not published:
        return False
    with png_figure(file, 7, 4.2, dpi=DPI) as figure:
        axes = figure.subplots()
        if measured:
            xs, _, means = zip(*measured, strict=True)
            axes.plot(xs, means, "-o", color=BLUE, markersize=7, label=MEASURED)
        for x, s, mean in measured:
            if s.interval:
                axes.plot((x - 0.06, x - 0.06), s.interval, color=SKY, linewidth=1.5, label=INTERVAL)
            if s.spreads:
                label = "standard deviation over seeds"
                axes.errorbar(x, mean, s.spreads["r_mean"], color=BLUE, capsize=5, label=label)
        if published:
            label = PUBLISHED if all(s.comparable for _, s in points) else ELSEWHERE
            axes.plot(*zip(*published, strict=True), "--D", color=VERMILION, linewidth=1, label=label, **HOLLOW)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set(xlabel=curve.key, ylabel=MEAN_RECALL)
        axes.margins(x=0.08, y=0.12)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        _finish(figure, axes, f"{title}: {curve.key}")
    return True


def draw_map(file: Path, rows: Mapping[str, Embedded], title: str) -> bool:
    """A t-SNE map of each row (title -> embeddings), pictures and captions together, coloured by scene.

    False (no file) without rows.
    """
    if not rows:
        return False
    counted = Counter(scene for embedded in rows.values() if embedded.scenes is not None for scene in embedded.scenes)
    inks = dict(zip((scene for scene, _ in counted.most_common(len(PALETTE))), PALETTE, strict=False))
    with png_figure(file, 5.6 * len(rows), 6.4, dpi=DPI) as figure:
        panels = figure.subplots(1, len(rows), squeeze=False)[0]
        for axes, (name, embedded) in zip(panels, rows.items(), strict=True):
            _draw_embedded(axes, embedded, inks)
            axes.set(xticks=[], yticks=[])
            axes.set_title(textwrap.fill(name, 50), fontsize=11)
        figure.suptitle(textwrap.fill(title, 60 * len(rows)), fontsize=12)
        entries = [(name, ink, "s") for name, ink in inks.items()]
        if len(counted) > len(inks) or not counted:
            entries.append(("other scenes" if inks else "no scenes known", GREY, "s"))
        entries += [("picture", DARK, "o"), ("its first caption", DARK, "^")]
        handles = [panels[0].scatter([], [], c=ink, marker=mark, s=40, label=name) for name, ink, mark in entries]
        columns = min(6, 3 * len(rows))  # what is as wide as the panels
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return True


def draw_logs(file: Path, logs: Sequence[LogToDraw]) -> None:
    """Write a PNG with a row a log: mean recall over epochs with the published one, and the losses."""
    with png_figure(file, 11, 2.7 * len(logs) + 0.3, dpi=110) as figure:
        for row, (left, right) in zip(logs, figure.subplots(len(logs), 2, squeeze=False), strict=True):
            left.set_title(row.name, loc="left", fontsize=11, fontweight="bold")
            _draw_epochs(left, row.log.means, "mean recall, %", mark_best=True)
            if row.published is not None:
                label = f"published {row.published:.2f}"
                left.axhline(row.published, color=DARK, linestyle="--", linewidth=1, label=label)
            _draw_epochs(right, row.log.losses, "training loss", mark_best=False)
            for axes in (left, right):
                if axes.get_legend_handles_labels()[0]:
                    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
                else:
                    axes.text(0.5, 0.5, "not in the log", transform=axes.transAxes, ha="center", color=DARK)
                    axes.set(xticks=[], yticks=[])


def _draw_embedded(axes: Axes, embedded: Embedded, inks: Mapping[str, str]) -> None:
    from sklearn.manifold import TSNE  # takes seconds, and only this picture needs it

    together = np.concatenate([embedded.pictures, embedded.captions])  # [2I, D]
    perplexity = min(PERPLEXITY, (len(together) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(together)  # [2I, 2]
    scenes = embedded.scenes if embedded.scenes is not None else [""] * len(embedded.pictures)
    colours = np.array([inks.get(scene, GREY) for scene in scenes])
    behind = colours == GREY
    for half, marker in zip(np.split(places, 2), "o^", strict=True):
        for chosen, z in ((behind, 1), (~behind, 2)):
            x, y = half[chosen].T
            axes.scatter(x, y, c=colours[chosen], marker=marker, s=16, linewidths=0, alpha=0.85, zorder=z)


def _draw_epochs(axes: Axes, curves: Mapping[str, Mapping[int, float]], what: str, *, mark_best: bool) -> None:
    for number, (name, curve) in enumerate(curves.items()):
        colour, epochs = PALETTE[number % len(PALETTE)], sorted(curve)
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
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Figure, axes: Axes, title: str) -> None:
    """Title, and one legend entry of a kind, below the axes where it covers nothing."""
    axes.set_title("\n".join(textwrap.wrap(title, 70)), fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    handles: dict[str, Any] = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)
