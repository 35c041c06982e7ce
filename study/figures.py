"""The figures of r_mean: a row below the other with its interval, and a curve over a config key."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.bootstrap import PERCENT
from study.plan import Curve
from study.summary import Summary
from utils.plots import png_figure

# Okabe and Ito's colours, told apart by the colour-blind
MEASURED_INK, PUBLISHED_INK, SEED_INK, FAINT = "#0072b2", "#d55e00", "#56b4e9", "#dddddd"
DPI = 150


def draw_rows(file: Path, summaries: Sequence[Summary], title: str) -> bool:
    """r_mean of each row with its interval, its seeds and its published value; False (no file) with none of these."""
    if not any(s.means or "r_mean" in s.published for s in summaries):
        return False
    with png_figure(file, 8, 1.6 + 0.5 * len(summaries), dpi=DPI) as figure:
        axes = figure.subplots()
        for y, s in enumerate(summaries):
            axes.axhline(y, color=FAINT, linewidth=0.8, zorder=0)
            if s.interval:
                axes.plot(
                    s.interval, (y, y), color=MEASURED_INK, linewidth=2.5, solid_capstyle="butt", label="interval"
                )
            if len(s.runs) > 1:
                seeds = [run.figures.r_mean for run in s.runs]
                axes.plot(seeds, [y + 0.22] * len(seeds), "|", color=SEED_INK, markersize=8, mew=1.8, label="seeds")
            if s.means:
                axes.plot(s.means["r_mean"], y, "o", color=MEASURED_INK, markersize=7, label="measured")
            if "r_mean" in s.published:
                marker, label = ("D", "published") if s.comparable else ("d", "elsewhere")
                style = {"markerfacecolor": "none", "markeredgecolor": PUBLISHED_INK, "mew": 1.6, "markersize": 7}
                axes.plot(s.published["r_mean"], y, marker, label=label, linestyle="none", **style)
        names = [s.title if s.means else f"{s.title} (missing)" for s in summaries]
        axes.set_yticks(range(len(summaries)), [textwrap.fill(name, 34) for name in names])
        axes.set_ylim(len(summaries) - 0.5, -0.5)  # the first row on top
        axes.set_xlabel("mean of the six recalls, percent")
        axes.margins(x=0.06)
        _finish(figure, axes, title)
    return True


def draw_curve(file: Path, curve: Curve, summaries: Sequence[Summary], title: str) -> bool:
    """r_mean over the key's values, evenly spaced in their order; False (no file) with nothing to draw."""
    rows = {s.name: s for s in summaries}
    values = sorted(set(curve.values.values()))
    points = [(values.index(value), rows[row]) for row, value in curve.values.items()]
    points.sort(key=lambda point: point[0])
    measured = [(x, s) for x, s in points if s.means]
    if not any(s.means or "r_mean" in s.published for _, s in points):
        return False
    with png_figure(file, 7, 4.2, dpi=DPI) as figure:
        axes = figure.subplots()
        if measured:
            xs, means = zip(*((x, s.means["r_mean"]) for x, s in measured), strict=True)
            axes.plot(xs, means, "-o", color=MEASURED_INK, markersize=7, label="measured")
        for x, s in measured:
            if s.interval:
                axes.plot((x - 0.06, x - 0.06), s.interval, color=SEED_INK, linewidth=1.5, label="interval")
            if s.spreads:
                axes.errorbar(x, s.means["r_mean"], s.spreads["r_mean"], color=MEASURED_INK, capsize=5, label="spread")
        published = [(x, s.published["r_mean"]) for x, s in points if "r_mean" in s.published]
        if published:
            xs, means = zip(*published, strict=True)
            style = {"markerfacecolor": "none", "markeredgecolor": PUBLISHED_INK, "mew": 1.6, "markersize": 7}
            label = "published" if all(s.comparable for _, s in points) else "elsewhere"
            axes.plot(xs, means, "--D", color=PUBLISHED_INK, linewidth=1, label=label, **style)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set_xlabel(curve.key)
        axes.set_ylabel("mean of the six recalls, percent")
        axes.margins(x=0.08, y=0.12)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        _finish(figure, axes, title)
    return True


LEGEND = {
    "measured": "measured, mean over seeds",
    "interval": f"{PERCENT} % interval over test pictures",
    "seeds": "measured, each seed",
    "spread": "standard deviation over seeds",
    "published": "published",
    "elsewhere": "published, on another test set",
}


def _finish(figure: Figure, axes: Axes, title: str) -> None:
    """Title, and one legend entry of a kind, below the axes where it covers nothing."""
    axes.set_title("\n".join(textwrap.wrap(title, 70)), fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    shown = [name for name in LEGEND if name in handles]
    named = [LEGEND[name] for name in shown]
    figure.legend([handles[name] for name in shown], named, loc="outside lower center", ncols=2, frameon=False)
