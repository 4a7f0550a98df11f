"""The report's figures: which there are, what each shows, and what each says to a screen reader.

The tables behind them are CSV files of plots/, which `dvc plots` draws and compares:

classes             class, train, validation                bar_horizontal
search, tune        number, state, macs, f1, score          scatter, macs against f1
train, finetune     epoch, loss, lr                         linear over epoch
<one>-validation    epoch, accuracy, f1; epochs measured    linear over epoch
layers              layer, macs_before, macs_after          bar_horizontal
f1-<split>          class, images, precision, recall, f1    bar_horizontal
confusion-<split>   actual, predicted; one row an image     confusion
calibration         from, images, confidence, accuracy      linear, confidence against accuracy
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from weighin.grading.score import ConfusionMatrix, Cost, Metrics, score
from weighin.params import Contest
from weighin.report.evaluation import BINS, DIGITS, Calibration, Floats, Results
from weighin.report.formatting import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    canvas,
    rules,
    saved,
    shorten,
    style,
)
from weighin.report.inputs import Epoch, Layer, Splits
from weighin.search.trials import AXES, StudyRecord, TrialRecord

WIDTH = 5.0  # inches: a phone shows it whole, its text still readable
BAR = 0.27  # inches a bar
MOST_BARS = 40
MOST_LAYERS = 20
MOST_CLASSES = 30  # of a larger confusion matrix; plots/ has all of it
CELL, LIGHT = "#0172b2", "#fefefe"  # the same in light and dark: text on a full cell stays readable
FULL = 0.8  # share of a row from which light text reads better than ink
GRID_POINTS = 120  # a side, of the lines of equal score
LEVELS = 9
UNITS = {  # of the front's axis
    "macs": "million MACs",
    "parameters": "million parameters",
    "memory": "MB of memory",
    "bytes": "MB of file",
}
LEGEND = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2, "borderaxespad": 0.2}


@dataclass(frozen=True)
class Chart:
    """An SVG file's text, what it shows, and what is to be seen in it."""

    svg: str
    caption: str
    alt: str


def draw(results: Results) -> dict[str, Chart]:
    """Return the figures that the data allow, by name."""
    data, contest = results.data, results.params.contest
    charts = {
        "classes": Chart(
            class_counts(data.dataset.splits),
            "Images of each class after the checks, by split.",
            f"Bars of {len(data.classes)} classes; the numbers are in the data report.",
        )
    }
    if data.search:
        charts["search"] = Chart(
            tradeoff(data.search, contest, data.cost),
            f"The trials of the search: {AXES[data.search.axis]} against validation F1, as "
            f"measured in the search. {' '.join(data.search.certainty()[:1])}".rstrip(),
            f"{len(data.search.complete())} trained networks, {len(data.search.front())} of them "
            f"on the front; trial {data.search.chosen} was chosen.",
        )
    for stage, history in data.histories.items():
        charts[stage] = Chart(
            training_curves(stage, history),
            f"Training loss and validation F1 of the stage {stage}.",
            f"The loss goes from {history[0].loss:.3f} to {history[-1].loss:.3f} "
            f"in {len(history)} epochs.",
        )
    if any(layer.method for layer in data.layers):
        charts["layers"] = Chart(
            layer_macs(data.layers),
            "MACs before and after the factorization, of the layers with the most.",
            f"Bars of {min(len(data.layers), MOST_LAYERS)} layers; the table has them all.",
        )
    for split, found in results.evaluations.items():
        charts[f"confusion-{split}"] = _confusion_chart(split, found.table)
    if results.calibration:
        charts["calibration"] = Chart(
            reliability(results.calibration),
            "How often the network is right against how sure it is; on the dashed line it is as "
            "right as it is sure. The numbers below count images.",
            f"The expected calibration error is {results.calibration.error:.4f}.",
        )
    return charts


def _confusion_chart(split: str, table: ConfusionMatrix) -> Chart:
    fewer = len(most_confused(table)) < len(table.classes)
    part = " of the classes that are in the most mistakes" if fewer else ""
    return Chart(
        confusion_matrix(table, f"confusion-{split}"),
        f"Confusion matrix{part} on the {split} split: a row's images are of one true class.",
        f"{int(table.counts.trace()):,} of {int(table.counts.sum()):,} images lie on the diagonal.",
    )


def class_counts(splits: Splits) -> str:
    """Return bars of the images a class has in each split; the 40 largest classes at most."""
    train, validation = splits.train, splits.validation
    names = sorted(train, key=lambda name: (-train[name] - validation.get(name, 0), name))
    names = names[:MOST_BARS]
    first = np.array([train[name] for name in names])
    second = np.array([validation.get(name, 0) for name in names])
    with style("classes"):
        height = BAR * len(names) + 1.05
        figure, axes = canvas(WIDTH, height, left=1.45, bottom=0.55, right=0.1, top=0.5)
        places = np.arange(len(names))
        axes.barh(places, first, 0.72, color=BLUE, label="train")
        axes.barh(places, second, 0.72, left=first, color=ORANGE, label="validation")
        most = int((first + second).max())
        for place, count in enumerate((first + second).tolist()):
            axes.text(count + most * 0.01, place, f"{count:,}", va="center", fontsize=9)
        axes.set_xlim(0, most * 1.16)
        _name_bars(axes, [shorten(name) for name in names], "images")
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
        _name_bars(axes, [shorten(layer.path, 26) for layer in shown], "MACs")
        return saved(figure)


def _name_bars(axes: Axes, names: Sequence[str], unit: str) -> None:
    axes.set_yticks(list(range(len(names))), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(True, axis="x")
    axes.legend(**LEGEND)


def training_curves(stage: str, history: Sequence[Epoch]) -> str:
    """Return the loss of each epoch over the F1 of those epochs that were validated."""
    with style(stage):
        figure, axes = canvas(WIDTH, 2.7, left=0.55, bottom=0.5, right=0.55, top=0.35)
        losses = [row.loss for row in history]
        axes.plot([row.epoch for row in history], losses, color=MUTED, linewidth=1.6)
        axes.set_ylim(0, max(losses) * 1.05 if max(losses) > 0 else 1)
        axes.set_xlabel("epoch")
        axes.set_title("training loss", loc="left", color=MUTED, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        f1s = {row.epoch: row.f1 for row in history if row.f1 is not None}
        if f1s:
            _f1_curve(axes, f1s)
        return saved(figure)


def _f1_curve(axes: Axes, f1s: dict[int, float]) -> None:
    right = axes.twinx()
    right.plot([*f1s], [*f1s.values()], "o-", color=BLUE, linewidth=1.8, markersize=3.5)
    best = max(f1s, key=lambda epoch: (f1s[epoch], -epoch))
    right.plot([best], [f1s[best]], "o", color=GREEN, markeredgecolor=PAPER, markersize=9)
    right.set_ylim(0, 1)
    right.spines["right"].set_visible(True)
    title = f"validation F1, best {f1s[best]:.4f} at epoch {best}"
    right.set_title(title, loc="right", color=BLUE, fontsize=9)


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


def confusion_matrix(table: ConfusionMatrix, identity: str = "confusion") -> str:
    """Return an SVG of the counts (K, K): rows are true classes, columns labels.

    A cell's color says which share of the true class it holds.
    """
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
        places = list(range(len(names)))
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
        axes.set_xticks(places, names, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
        axes.set_yticks(places, names, fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title("row: true class, column: label", loc="left", fontsize=9, color=MUTED)
        return saved(figure)


def _cell(axes: Axes, x: int, y: int, count: int, share: float) -> None:
    # the share is the color's opacity, so that cells fade to the paper in light and dark alike
    color = (*to_rgba(CELL)[:3], round(share, 3))
    square = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor=GRID, linewidth=0.6)
    axes.add_patch(square)
    if count:
        ink = LIGHT if share > FULL else INK
        axes.text(x, y, str(count), ha="center", va="center", color=ink, fontsize=8)


def most_confused(table: ConfusionMatrix) -> list[int]:
    """Return the classes shown, in their order: all, or the 30 in the most mistakes."""
    wrong = table.counts.copy()
    np.fill_diagonal(wrong, 0)
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    return sorted(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES].tolist())


def tradeoff(found: StudyRecord, contest: Contest, cost: Cost) -> str:
    """Return the complete trials' costs and F1, the front, and lines of equal score over MACs.

    `cost` is that of the final network, for formulas that count more than MACs.
    """
    trials = [trial for trial in found.complete() if found.cost(trial)]
    with style("search"):
        figure, axes = canvas(WIDTH, 4.2, left=0.6, bottom=1.0, right=0.1, top=0.1)
        f1s = _f1s(trials) if trials else np.array([0.0, 1.0])
        low, high = float(f1s.min()), float(f1s.max())
        spare = max(0.02, (high - low) * 0.12)
        axes.set(xlim=(0, _millions(found, trials).max(initial=0.1) * 1.08))
        axes.set(ylim=(max(0.0, low - spare), min(1.0, high + spare)))
        if found.axis == "macs":
            _contours(axes, contest, cost)
        _floor(axes, rules(contest).floor)
        chosen = [trial for trial in trials if trial.number == found.chosen]
        looks: dict[str, Any] = {"color": MUTED, "alpha": 0.6, "markersize": 4.5}
        axes.plot(_millions(found, trials), _f1s(trials), "o", label="trial", **looks)
        front, looks = found.front(), {"color": BLUE, "linewidth": 1.4, "markersize": 5.5}
        axes.plot(_millions(found, front), _f1s(front), "o-", label="front", **looks)
        if chosen:
            star: dict[str, Any] = {"color": ORANGE, "markeredgecolor": PAPER, "markersize": 18}
            axes.plot(_millions(found, chosen), _f1s(chosen), "*", label="chosen", **star)
        axes.set(xlabel=UNITS[found.axis], ylabel="validation F1")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, handletextpad=0.4)
        return saved(figure)


def _millions(found: StudyRecord, trials: Sequence[TrialRecord]) -> Floats:
    return np.array([found.cost(trial) for trial in trials], np.float64) / 1e6


def _f1s(trials: Sequence[TrialRecord]) -> Floats:
    return np.array([trial.f1 or 0 for trial in trials], np.float64)


def _contours(axes: Axes, contest: Contest, cost: Cost) -> None:
    """Draw lines of equal score above the floor and under the ceiling, where it does not jump."""
    found = rules(contest)
    low = max(axes.get_ylim()[0], found.floor or 0.0)
    right = min(axes.get_xlim()[1], (found.ceiling or np.inf) / 1e6)
    if low >= axes.get_ylim()[1]:
        return
    x = np.linspace(axes.get_xlim()[0], right, GRID_POINTS)
    y = np.linspace(low, axes.get_ylim()[1], GRID_POINTS)
    # accuracy stands in for itself: a formula that scores it has no place for F1, and the reverse
    bits = cost.multiply_bits // cost.macs
    costs = [replace(cost, macs=(n := round(macs * 1e6)), multiply_bits=bits * n) for macs in x]
    z = np.array([[score(contest, Metrics.of(f1, f1, one)).value for one in costs] for f1 in y])
    if np.ptp(z) < 1e-9:
        return
    levels = MaxNLocator(LEVELS).tick_values(float(z.min()), float(z.max()))
    lines = axes.contour(x, y, z, levels=levels, colors=[GRID], linewidths=1.1)
    axes.clabel(lines, fmt=lambda value: f"{value:g}", fontsize=8, colors=[MUTED])
    axes.plot([], [], color=GRID, linewidth=1.5, label="equal score (lower is better)")


def _floor(axes: Axes, floor: float | None) -> None:
    low, high = axes.get_ylim()
    if floor is not None and low < floor < high:
        axes.axhline(floor, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"floor {floor:g}",
            (axes.get_xlim()[1], floor),
            (-4, -12),  # lines of equal score end at the floor: below it is free
            textcoords="offset points",
            ha="right",
            color=ORANGE,
            fontsize=9,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )


def tables(results: Results) -> dict[str, str]:
    """Return {file name: CSV text} of what there is."""
    data, splits = results.data, results.data.dataset.splits
    frames = {
        "classes": pd.DataFrame(
            {
                "class": [*splits.train],
                "train": [*splits.train.values()],
                "validation": [splits.validation[name] for name in splits.train],
            }
        )
    }
    for stage, study in (("search", data.search), ("tune", data.tune)):
        if study:
            frames[stage] = _frame(study.trials)[["number", "state", "macs", "f1", "score"]]
    for stage, history in data.histories.items():
        # what was measured lies apart from the losses: a gap would break DVC's lines
        epochs = _frame(history).dropna(axis="columns", how="all")
        frames[stage] = epochs.drop(columns=["f1", "accuracy"], errors="ignore")
        if "f1" in epochs:
            frames[f"{stage}-validation"] = epochs.dropna(subset="f1")[
                ["epoch", *sorted({"f1", "accuracy"} & {*epochs})]
            ]
    if data.layers:
        layers = _frame(data.layers).rename(columns={"path": "layer"})
        frames["layers"] = layers[["layer", "macs_before", "macs_after"]]
    for split, found in results.evaluations.items():
        frames[f"f1-{split}"] = _by_class(found.table)
        frames[f"confusion-{split}"] = _confusion(found.table)
    if results.calibration:
        frames["calibration"] = _calibration(results.calibration)
    return {
        f"{name}.csv": frame.to_csv(index=False, lineterminator="\n")
        for name, frame in frames.items()
    }


def _frame(rows: Iterable[object]) -> pd.DataFrame:
    """Return records as a table; numbers stay as they are beside those that are missing."""
    return pd.DataFrame([asdict(row) for row in rows], dtype=object)  # type: ignore[call-overload]


def _by_class(table: ConfusionMatrix) -> pd.DataFrame:
    """Return the classes that occur."""
    rows = _frame(table.rows()).rename(columns={"name": "class"})
    return _rounded(rows[["class", "images", "precision", "recall", "f1"]].dropna())


def _confusion(table: ConfusionMatrix) -> pd.DataFrame:
    """Return a row an image: DVC's confusion template counts rows."""
    cells = np.repeat(np.arange(table.counts.size), table.counts.ravel())
    true, predicted = np.divmod(cells, len(table.classes))
    names = np.array(table.classes, dtype=object)
    return pd.DataFrame({"actual": names[true], "predicted": names[predicted]})


def _calibration(found: Calibration) -> pd.DataFrame:
    bins = {
        "from": [f"{place / BINS:g}" for place in range(BINS)],
        "images": found.images,
        "confidence": found.confidence,
        "accuracy": found.accuracy,
    }
    return _rounded(pd.DataFrame(bins)[found.images > 0])


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Round as Python does, to the nearest number; pandas may be one in the last place off."""
    return frame.map(lambda value: round(value, DIGITS) if isinstance(value, float) else value)
