"""Which trials of a generation go on: the better half (successive halving).

Jamieson and Talwalkar, AISTATS 2016. For one objective, the better half is that of the lower score.
For a front it is what adds most to its hypervolume, taken one by one; once nothing adds to it, the
same again with what is left, so that what noise put just behind the front has a second chance.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from weighin.grading.score import Metrics, has_floor, score
from weighin.params import Contest

T = TypeVar("T")
Point = tuple[int, int]  # F1 in millionths, so that equal gains are equal; MACs, or another cost
Ints = npt.NDArray[np.int64]
MILLION = 10**6


def better_half(trials: int) -> int:
    """Return how many of so many trials go on."""
    return (trials + 1) // 2


def proxy_score(contest: Contest, metrics: Metrics) -> float:
    """Return a score that ranks networks before they are fully trained; lower is better.

    It is the contest's own, but for the step at its floor, which would make all short trainings
    alike: here what is missing to the floor is added instead.
    """
    missing = max(0.0, contest.floor_f1 - metrics.f1) if has_floor(contest) else 0.0
    return score(replace(contest, floor_f1=0.0), metrics).value + missing / contest.reference_f1


def hypervolume(points: Sequence[Metrics], gate: int) -> float:
    """Return the sum over every number of MACs up to `gate` of the best F1 that it buys."""
    total, best, before = 0.0, 0.0, 0
    for point in sorted(points, key=lambda point: point.macs):
        total += best * (point.macs - before)
        best, before = max(best, point.f1), point.macs
    return total + best * (gate - before)


def by_gain(
    trials: Sequence[T], metrics: Callable[[T], Metrics], gate: int, axis: str = "macs"
) -> list[T]:
    """Return the trials, those first that add most to the front of those before them.

    What adds to a front is what no other trial dominates, so the order goes front by front. In a
    front, the gain of a trial depends on its nearest neighbors that are taken, fewer MACs `left`
    and more MACs `right`: (F1 - F1 of left) * (MACs of right - MACs). Each trial that is taken
    parts its interval in two, which takes n log n steps for n trials unless the parts are uneven.
    """
    found = [metrics(trial) for trial in trials]
    points = [(round(one.f1 * MILLION), getattr(one, axis)) for one in found]
    order: list[int] = []
    fronts, without_gain = _fronts(points, gate)
    for front in fronts:
        f1, macs = np.array([points[place] for place in front]).T
        order += _by_gain_in_front(np.array(front), f1, np.append(macs, gate))
    return [trials[place] for place in order + without_gain]


def _fronts(points: Sequence[Point], gate: int) -> tuple[list[list[int]], list[int]]:
    """Return the places of the first front, fewest MACs first, of the front behind it, and so on.

    Places of points whose hypervolume is 0 come extra, in their order.
    """
    without = [place for place, (f1, macs) in enumerate(points) if f1 <= 0 or macs >= gate]
    rest = set(range(len(points))) - set(without)
    fronts: list[list[int]] = []
    lowest: list[int] = []  # minus the best F1 of each front so far: they rise
    for place in sorted(rest, key=lambda place: (points[place][1], -points[place][0], place)):
        f1 = points[place][0]
        behind = bisect_right(lowest, -f1)
        if behind == len(fronts):
            fronts.append([])
            lowest.append(0)
        fronts[behind].append(place)
        lowest[behind] = -f1
    return fronts, without


def _by_gain_in_front(front: Ints, f1: Ints, macs: Ints) -> list[int]:
    """Return the places of a front (n,) in the order of their gains; both axes rise along it.

    `macs` (n + 1,) ends in the gate.
    """
    intervals: list[tuple[int, int, int, int, int]] = []  # minus gain, place, index, start, end

    def consider(start: int, end: int) -> None:
        """Note what gains most from the front's start to its end, where none is taken yet."""
        if start < end:
            gains = (f1[start:end] - (f1[start - 1] if start else 0)) * (
                macs[end] - macs[start:end]
            )
            best = np.flatnonzero(gains == gains.max()) + start
            index = int(best[np.argmin(front[best])])  # the first of equals
            heappush(intervals, (-int(gains.max()), int(front[index]), index, start, end))

    consider(0, len(front))
    order = []
    while intervals:
        _, place, index, start, end = heappop(intervals)
        order.append(place)
        consider(start, index)
        consider(index + 1, end)
    return order
