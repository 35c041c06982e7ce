"""What a classifier takes for what: counts, accuracies and the picture of them."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from utils.plots import png_figure

CELL_INCHES = 0.3  # room for three digits
MOST_INCHES = 30.0  # a side; the cells and letters of more than a hundred classes shrink


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """labels `[N]`, predictions `[N]` -> counts `[classes, classes]`, a row a class as labelled."""
    return (labels * classes + predictions).bincount(minlength=classes**2).reshape(classes, classes)


def class_accuracies(matrix: Tensor) -> list[float | None]:
    """Percent of each class's pictures that are recognised, rounded to 2; None for a class without pictures."""
    return [
        round(100 * right / of_class, 2) if of_class else None
        for right, of_class in zip(matrix.diag().tolist(), matrix.sum(dim=1).tolist(), strict=True)
    ]


def accuracy(matrix: Tensor) -> dict[str, float]:
    """`top1`, percent of all pictures, and `mean_per_class`, the mean over the classes that have some; rounded to 2."""
    pictures = matrix.sum(dim=1).double()
    there = pictures > 0
    recognised = matrix.diag().double()
    figures = {
        "top1": recognised.sum() / pictures.sum(),
        "mean_per_class": (recognised[there] / pictures[there]).mean(),
    }
    return {name: round(100 * float(value), 2) for name, value in figures.items()}


def draw_confusion(file: Path, matrix: Tensor, classes: Sequence[str], *, title: str) -> None:
    """Write a PNG of the counts `[C, C]`, coloured by their share of the row's pictures, whole or not at all.

    A row's name carries its class's accuracy and pictures; what is right is on the diagonal.
    """
    counts = matrix.cpu().double()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    cell = min(CELL_INCHES, MOST_INCHES / len(classes))
    letters = 8 * cell / CELL_INCHES
    side = cell * len(classes)
    with png_figure(file, side + 4, side + 3, dpi=110, bbox_inches="tight") as figure:
        axes = figure.add_subplot()
        image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        for row, column in counts.nonzero().tolist():
            axes.text(
                column,
                row,
                f"{counts[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=letters,
                color="white" if shares[row, column] > 0.5 else "black",
            )
        rows = [
            f"{name}  {'–' if percent is None else f'{percent:.0f} %'} of {of_class:.0f}"
            for name, percent, of_class in zip(
                classes, class_accuracies(matrix), counts.sum(dim=1).tolist(), strict=True
            )
        ]
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=letters + 1)
        axes.set_yticks(range(len(classes)), rows, fontsize=letters + 1)
        axes.set_xticks([x + 0.5 for x in range(len(classes) - 1)], minor=True)
        axes.set_yticks([y + 0.5 for y in range(len(classes) - 1)], minor=True)
        axes.grid(which="minor", color="#e6e6e6", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("recognised as")
        axes.set_ylabel("labelled as")
        axes.set_title(title)
        figure.colorbar(image, label="share of the labelled class", shrink=0.6)
