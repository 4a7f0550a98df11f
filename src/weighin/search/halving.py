"""Which trials of a generation go on: the better half (successive halving).

Jamieson and Talwalkar, AISTATS 2016. For one objective, the better half is that of the lower score.
For a front it is what adds most to its hypervolume, taken one by one; once nothing adds to it, the
same again with what is left, so that what noise put just behind the front has a second chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from weighin.grading.score import Metrics, has_floor, score
from weighin.params import Contest

T = TypeVar("T")


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


def by_gain(trials: Sequence[T], metrics: Callable[[T], Metrics], gate: int) -> list[T]:
    """Return the trials, those first that add most to the front of those before them."""
    left, order = list(trials), list[T]()
    front: list[Metrics] = []

    def volume(trial: T) -> float:
        return hypervolume([*front, metrics(trial)], gate)

    while left:
        best = max(left, key=volume)  # the first of equals
        if front and volume(best) <= hypervolume(front, gate):
            front.clear()
            continue
        front.append(metrics(best))
        order.append(best)
        left.remove(best)
    return order
