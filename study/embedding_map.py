"""A t-SNE map of rows' test embeddings, side by side, coloured by scene."""

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.results import read_arrays
from utils.errors import InputError
from utils.plots import png_figure

# Okabe and Ito's colours, told apart by the colour-blind; more than these nobody tells apart, so the rest is grey.
INKS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#000000")
OTHERS = "#c8c8c8"
PERPLEXITY = 30
SEED = 0
DPI = 150


@dataclass(frozen=True)
class Embedded:
    """A test set's embeddings: I pictures and one caption of each."""

    pictures: np.ndarray  # [I, D]
    captions: np.ndarray  # [I, D], of each picture its first
    scenes: np.ndarray | None  # [I], names; None where the test annotation has no labels


def read_embeddings(file: Path) -> Embedded:
    """Read and check an embeddings.npz."""
    arrays = read_arrays(file)
    try:
        images, texts, own = (arrays[name] for name in ("image_embeds", "text_embeds", "own_image_of_text"))
        fits = images.ndim == texts.ndim == 2 and images.shape[1] == texts.shape[1] and own.shape == texts.shape[:1]
        pictures, first = np.unique(own, return_index=True)
        names = arrays.get("label_name", arrays.get("label"))
        if not fits or not np.array_equal(pictures, np.arange(len(images))):
            raise ValueError("its arrays do not fit together")
        if names is not None and names.shape != (len(images),):
            raise ValueError("it has not a label for each picture")
        if not (np.isfinite(images).all() and np.isfinite(texts).all()):
            raise ValueError("its embeddings are not all finite")
    except KeyError as error:
        raise InputError(f"{file} has no {error}; remove it or run again") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{file} holds no embeddings of a test set ({error}); remove it or run again") from None
    scenes = None if names is None else names.astype(str)
    return Embedded(images.astype(np.float32), texts[first].astype(np.float32), scenes)


def draw_map(file: Path, rows: Mapping[str, Embedded], title: str) -> None:
    """Write the maps of the rows (title -> embeddings), pictures and captions of each embedded together."""
    counted = Counter(scene for embedded in rows.values() if embedded.scenes is not None for scene in embedded.scenes)
    inks = dict(zip((scene for scene, _ in counted.most_common(len(INKS))), INKS, strict=False))
    with png_figure(file, 5.6 * len(rows), 6.4, dpi=DPI) as figure:
        panels = figure.subplots(1, len(rows), squeeze=False)[0]
        for axes, (name, embedded) in zip(panels, rows.items(), strict=True):
            _draw_panel(axes, embedded, inks)
            axes.set_title(textwrap.fill(name, 50), fontsize=11)
        figure.suptitle(textwrap.fill(title, 60 * len(rows)), fontsize=12)
        columns = min(6, 3 * len(rows))  # what is as wide as the panels
        _legend(figure, panels[0], inks, columns, others=len(counted) > len(inks) or not counted)


def _draw_panel(axes: Axes, embedded: Embedded, inks: Mapping[str, str]) -> None:
    from sklearn.manifold import TSNE  # takes seconds, and only this picture needs it

    together = np.concatenate([embedded.pictures, embedded.captions])  # [2I, D]
    perplexity = min(PERPLEXITY, (len(together) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(together)  # [2I, 2]
    scenes = embedded.scenes if embedded.scenes is not None else [""] * len(embedded.pictures)
    colours = np.array([inks.get(scene, OTHERS) for scene in scenes])
    behind = colours == OTHERS
    for half, marker in ((places[: len(colours)], "o"), (places[len(colours) :], "^")):
        for chosen, z in ((behind, 1), (~behind, 2)):
            axes.scatter(*half[chosen].T, c=colours[chosen], marker=marker, s=16, linewidths=0, alpha=0.85, zorder=z)
    axes.set_xticks([])
    axes.set_yticks([])


def _legend(figure: Figure, axes: Axes, inks: Mapping[str, str], columns: int, *, others: bool) -> None:
    named = [*inks.items(), *([("other scenes" if inks else "no scenes known", OTHERS)] if others else [])]
    handles = [axes.scatter([], [], c=ink, marker="s", s=40, label=name) for name, ink in named]
    handles += [
        axes.scatter([], [], c="#555555", marker=marker, s=30, label=name)
        for name, marker in (("picture", "o"), ("its first caption", "^"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
