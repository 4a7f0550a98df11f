"""The confusion matrix as a figure: counts in cells, coloured by share of the true class."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from weighin.grading.f1 import Confusion
from weighin.report.svg import GRID, INK, MUTED, canvas, saved, shorten, style

MOST_CLASSES = 30  # of a larger table; plots/ has all of it
CELL, LIGHT = "#0172b2", "#fefefe"  # the same in light and dark: text on a full cell stays readable
FULL = 0.8  # share from which light text reads better than ink


def confusion_matrix(table: Confusion, identity: str = "confusion") -> str:
    """Return an SVG of the counts (K, K): rows are true classes, columns labels."""
    shown = most_confused(table)
    counts = table.counts[np.ix_(shown, shown)]
    share = counts / np.maximum(table.counts.sum(axis=1)[shown], 1)[:, None]
    names = [shorten(table.classes[k]) for k in shown]
    side = max(0.34, min(0.5, 3.6 / len(names))) * len(names)
    longest = max(len(name) for name in names)
    left, bottom = 0.15 + 0.08 * longest, 0.25 + 0.062 * longest  # inches, for the class names
    with style(identity):
        figure, axes = canvas(side + left + 0.15, side + bottom + 0.35, left, bottom, top=0.35)
        for (i, j), count in np.ndenumerate(counts):
            _cell(axes, j, i, int(count), float(share[i, j]))
        _name_sides(axes, names)
        axes.set_title("row: true class, column: label", loc="left", fontsize=9, color=MUTED)
        return saved(figure)


def most_confused(table: Confusion) -> list[int]:
    """Return the classes shown, in their order: all, or the 30 in the most mistakes."""
    wrong = table.counts.copy()
    np.fill_diagonal(wrong, 0)
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    return sorted(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES].tolist())


def _cell(axes: Axes, x: int, y: int, count: int, share: float) -> None:
    # the share is the colour's opacity, so that cells fade to the paper in light and dark alike
    colour = (*to_rgba(CELL)[:3], round(share, 3))
    square = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=GRID, linewidth=0.6)
    axes.add_patch(square)
    if count:
        ink = LIGHT if share > FULL else INK
        axes.text(x, y, str(count), ha="center", va="center", color=ink, fontsize=8)


def _name_sides(axes: Axes, names: Sequence[str]) -> None:
    places = list(range(len(names)))
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(places, names, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(places, names, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
