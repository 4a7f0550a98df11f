"""The figures of the data, the training, the compression and the calibration.

Each function returns the text of an SVG file.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from weighin.report.evaluation import BINS, Calibration
from weighin.report.svg import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    canvas,
    saved,
    shorten,
    style,
)
from weighin.report.trials import Layer

WIDTH = 5.0  # inches: a phone shows it whole, its text still readable
BAR = 0.27  # inches a bar
MOST_BARS = 40
MOST_LAYERS = 20

History = Sequence[Mapping[str, float]]


def class_counts(train: Mapping[str, int], validation: Mapping[str, int]) -> str:
    """Return bars of the images a class has in each split; the 40 largest classes at most."""
    names = sorted(train, key=lambda name: (-train[name] - validation.get(name, 0), name))
    names = names[:MOST_BARS]
    first = np.array([train[name] for name in names])
    second = np.array([validation.get(name, 0) for name in names])
    with style("classes"):
        figure, axes = canvas(
            WIDTH, BAR * len(names) + 1.05, left=1.45, bottom=0.55, right=0.1, top=0.5
        )
        places = np.arange(len(names))
        axes.barh(places, first, 0.72, color=BLUE, label="train")
        axes.barh(places, second, 0.72, left=first, color=ORANGE, label="validation")
        most = int((first + second).max())
        for place, count in enumerate((first + second).tolist()):
            axes.text(count + most * 0.01, place, f"{count:,}", va="center", fontsize=9)
        axes.set_xlim(0, most * 1.16)
        _bar_names(axes, names)
        _count_axis(axes, "images")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
        return saved(figure)


def layer_macs(layers: Sequence[Layer]) -> str:
    """Return bars of the MACs of each layer before and after the factorization.

    The 20 layers with the most MACs before, in the network's order.
    """
    largest = sorted(range(len(layers)), key=lambda k: (-layers[k].macs_before, k))[:MOST_LAYERS]
    shown = [layers[k] for k in sorted(largest)]
    places = np.arange(len(shown))
    with style("layers"):
        height = 1.4 * BAR * len(shown) + 1.05
        figure, axes = canvas(WIDTH, height, left=1.95, bottom=0.55, right=0.2, top=0.5)
        before = [layer.macs_before for layer in shown]
        after = [layer.macs_after for layer in shown]
        axes.barh(places - 0.2, before, 0.38, color=MUTED, alpha=0.55, label="before")
        axes.barh(places + 0.2, after, 0.38, color=BLUE, label="after")
        _bar_names(axes, [layer.path for layer in shown], most=26)
        _count_axis(axes, "MACs")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
        return saved(figure)


def training_curves(stage: str, history: History) -> str:
    """Return the loss of each epoch over the F1 of those epochs that were validated."""
    measured = [row for row in history if "f1" in row]
    with style(stage):
        figure, axes = canvas(WIDTH, 2.7, left=0.55, bottom=0.5, right=0.55, top=0.35)
        epochs, losses = ([row[key] for row in history] for key in ("epoch", "loss"))
        axes.plot(epochs, losses, color=MUTED, linewidth=1.6)
        axes.set_ylim(0, max(losses) * 1.05 if max(losses) > 0 else 1)
        axes.set_xlabel("epoch")
        axes.set_title("training loss", loc="left", color=MUTED, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if measured:
            _f1_curve(axes, measured)
        return saved(figure)


def reliability(found: Calibration) -> str:
    """Return how often the network is right against how sure it is, over how many images."""
    places = (np.arange(BINS) + 0.5) / BINS
    filled = found.images > 0
    with style("calibration"):
        figure, axes = canvas(4.0, 3.7, left=0.6, bottom=0.5, top=0.15)
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
        axes.bar(places[filled], found.accuracy[filled], 0.92 / BINS, color=BLUE, alpha=0.35)
        axes.plot(found.confidence[filled], found.accuracy[filled], "o-", color=BLUE, linewidth=1.6)
        for place, images in zip(places[filled], found.images[filled], strict=True):
            axes.text(place, 0.012, f"{images:,}", ha="center", fontsize=8, color=INK)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share labelled right")
        axes.grid(True, axis="y")
        return saved(figure)


def _f1_curve(axes: Axes, measured: History) -> None:
    right = axes.twinx()
    epochs, values = ([row[key] for row in measured] for key in ("epoch", "f1"))
    right.plot(epochs, values, "o-", color=BLUE, linewidth=1.8, markersize=3.5)
    best = max(measured, key=lambda row: (row["f1"], -row["epoch"]))
    right.plot([best["epoch"]], [best["f1"]], "o", color=GREEN, markeredgecolor=PAPER, markersize=9)
    right.set_ylim(0, 1)
    right.spines["right"].set_visible(True)
    title = f"validation F1, best {best['f1']:.4f} at epoch {best['epoch']:.0f}"
    right.set_title(title, loc="right", color=BLUE, fontsize=9)


def _bar_names(axes: Axes, names: Sequence[str], most: int = 18) -> None:
    axes.set_yticks(list(range(len(names))), [shorten(name, most) for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _count_axis(axes: Axes, unit: str) -> None:
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(True, axis="x")
