"""The search as a figure: every trained network's MACs and F1, the front, lines of equal score."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from weighin.grading.f1 import Floats
from weighin.grading.score import Metrics, score
from weighin.params import Contest
from weighin.report.figures import WIDTH
from weighin.report.rules import rules
from weighin.report.svg import BLUE, GRID, MUTED, ORANGE, PAPER, canvas, saved, style
from weighin.report.trials import Trial, Trials

GRID_POINTS = 120  # a side
LEVELS = 9


def tradeoff(found: Trials, contest: Contest, parameters: int) -> str:
    """Return an SVG of the complete trials; `parameters` are those of the final network."""
    trials = [trial for trial in found.complete() if trial.macs is not None]
    with style("search"):
        figure, axes = canvas(WIDTH, 4.2, left=0.6, bottom=1.0, right=0.1, top=0.1)
        low, high = _limits(_f1s(trials).tolist())
        axes.set(xlim=(0, _millions(trials).max(initial=0.1) * 1.08), ylim=(low, high))
        _contours(axes, contest, parameters)
        _floor(axes, contest)
        _points(axes, found, trials)
        axes.set(xlabel="million MACs", ylabel="validation F1")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, handletextpad=0.4)
        return saved(figure)


def _millions(trials: Sequence[Trial]) -> Floats:
    return np.array([trial.macs or 0 for trial in trials], np.float64) / 1e6


def _f1s(trials: Sequence[Trial]) -> Floats:
    return np.array([trial.f1 or 0 for trial in trials], np.float64)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    spare = max(0.02, (high - low) * 0.12)
    return max(0.0, low - spare), min(1.0, high + spare)


def _contours(axes: Axes, contest: Contest, parameters: int) -> None:
    """Draw lines of equal score above the floor and under the ceiling, where it does not jump."""
    held = rules(contest)
    low = max(axes.get_ylim()[0], held.floor or 0.0)
    right = min(axes.get_xlim()[1], (held.ceiling or np.inf) / 1e6)
    if low >= axes.get_ylim()[1]:
        return
    x = np.linspace(axes.get_xlim()[0], right, GRID_POINTS)
    y = np.linspace(low, axes.get_ylim()[1], GRID_POINTS)
    z = np.array([[_score(contest, macs, f1, parameters) for macs in x] for f1 in y])
    if np.ptp(z) < 1e-9:
        return
    levels = MaxNLocator(LEVELS).tick_values(float(z.min()), float(z.max()))
    lines = axes.contour(x, y, z, levels=levels, colors=[GRID], linewidths=1.1)
    axes.clabel(lines, fmt=lambda value: f"{value:g}", fontsize=8, colors=[MUTED])
    axes.plot([], [], color=GRID, linewidth=1.5, label="equal score (lower is better)")


def _score(contest: Contest, millions: float, f1: float, parameters: int) -> float:
    # accuracy stands in for itself: a formula that scores it has no place for F1, and the reverse
    return score(contest, Metrics(f1, f1, round(millions * 1e6), parameters)).value


def _floor(axes: Axes, contest: Contest) -> None:
    low, high = axes.get_ylim()
    floor = rules(contest).floor
    if floor is not None and low < floor < high:
        axes.axhline(floor, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)))
        words = f"floor {floor:g}"
        place = (axes.get_xlim()[1], floor)
        axes.annotate(
            words,
            place,
            (-4, -12),  # lines of equal score end at the floor: below it is free
            textcoords="offset points",
            ha="right",
            color=ORANGE,
            fontsize=9,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )


def _points(axes: Axes, found: Trials, trials: Sequence[Trial]) -> None:
    axes.plot(
        _millions(trials), _f1s(trials), "o", color=MUTED, alpha=0.6, markersize=4.5, label="trial"
    )
    front = found.front()
    axes.plot(
        _millions(front),
        _f1s(front),
        "o-",
        color=BLUE,
        linewidth=1.4,
        markersize=5.5,
        label="front",
    )
    for trial in trials:
        if trial.number == found.chosen:
            axes.plot(
                _millions([trial]),
                _f1s([trial]),
                "*",
                color=ORANGE,
                markeredgecolor=PAPER,
                markersize=18,
                label="chosen",
            )
