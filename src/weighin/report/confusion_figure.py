"""The confusion matrix as a figure: counts in cells, coloured by share of the true class."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from weighin.grading.f1 import Confusion
from weighin.report.svg import BLUE, GRID, INK, PAPER, canvas, saved, shorten, style

MOST_CLASSES = 30  # of a larger table; plots/confusion.csv has all of it
MARGIN = 1.7  # inches, for the class names


def confusion_matrix(table: Confusion, name: str = "confusion") -> str:
    """Return an SVG of the counts (K, K): rows are true classes, columns labels."""
    shown = most_confused(table)
    counts = table.counts[np.ix_(shown, shown)]
    share = counts / np.maximum(table.counts.sum(axis=1)[shown], 1)[:, None]
    names = [shorten(table.classes[k]) for k in shown]
    side = max(0.36, min(0.62, 5.0 / len(names))) * len(names)
    with style(name):
        figure, axes = canvas(side + MARGIN + 0.15, side + MARGIN + 0.15, MARGIN, MARGIN, top=0.15)
        for (i, j), count in np.ndenumerate(counts):
            _cell(axes, j, i, int(count), float(share[i, j]))
        _name_sides(axes, names)
        figure.text(0.98, 0.02, "labelled as", ha="right", weight="bold")
        figure.text(0.02, 0.02, "true class, by row", weight="bold")
        return saved(figure)


def most_confused(table: Confusion) -> list[int]:
    """Return the classes shown, in their order: all, or the 30 in the most mistakes."""
    wrong = table.counts.copy()
    np.fill_diagonal(wrong, 0)
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    return sorted(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES].tolist())


def _cell(axes: Axes, x: int, y: int, count: int, share: float) -> None:
    # the share is the colour's opacity, so that cells fade to the paper in light and dark alike
    colour = (*to_rgba(BLUE)[:3], round(share, 3))
    square = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=GRID, linewidth=0.6)
    axes.add_patch(square)
    if count:
        ink = PAPER if share > 0.55 else INK
        axes.text(x, y, str(count), ha="center", va="center", color=ink, fontsize=8)


def _name_sides(axes: Axes, names: Sequence[str]) -> None:
    places = list(range(len(names)))
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(places, names, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(places, names, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
