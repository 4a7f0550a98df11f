"""A study in generations: ask for some trials, train them in rungs, tell what came of them.

Every ask has a fresh sampler seeded from (seed, trial number), and results are told in the order of
the trials, so a study is the same for any number of workers and after any number of restarts. A
rejected ask (over the gate, no network, a network that was asked before) costs no training and does
not count as a trial.

A generation trains to the first rung, its better half goes on to the next (successive halving:
Jamieson and Talwalkar, AISTATS 2016). Those that stop are told with the F1 that they have. For one
objective, the better half is that of the lower score. For a front it is what adds most to its
hypervolume, taken one by one; once nothing adds to it, the same again with what is left, so that
what noise put just behind the front has a second chance.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from weighin.determinism import generator
from weighin.grading.score import LIMITS, Cost, Metrics, has_floor, over_limits, score
from weighin.network.spec import NetworkSpec
from weighin.params import Contest, Recipe
from weighin.search.evaluation import Measured
from weighin.search.space import sampler

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


MAX_REJECTED = 200  # asks in a row


@dataclass(frozen=True)
class Proposal:
    """What one trial trains: a network and a recipe, and the values that were drawn for it."""

    params: dict[str, Any]
    spec: NetworkSpec
    recipe: Recipe
    cost: Cost


@dataclass
class Trial:
    """A proposal under its number; `measured` is the last that is known of it."""

    number: int
    proposal: Proposal
    state: str = "complete"
    measured: Measured | None = None
    split: int = 0  # of the packed images
    parent: int | None = None  # the trial whose weights it starts from

    def metrics(self) -> Metrics:
        """Return what the contest scores."""
        assert self.measured is not None
        found = self.measured.confusion
        return Metrics.of(round(found.f1, 6), round(found.accuracy, 6), self.proposal.cost)


@dataclass(frozen=True)
class Plan:
    """How a study goes: `rungs` are the epochs at which half of a generation stops, and the end."""

    name: str
    seed: int
    trials: int
    generation: int
    rungs: tuple[int, ...]
    shards: int
    sampler: str
    objective: str
    baseline: int | None = None  # a trial that never stops early
    axis: str = "macs"  # of the front: a field of Cost
    augment: float = 1.0  # share of a recipe's augmentation that a trial has
    warm_start: bool = False  # from the weights of finished trials

    def epochs(self) -> int:
        """Return how many epochs the whole study trains, if every generation is full."""
        full, rest = divmod(self.trials, self.generation)
        return full * self._generation_epochs(self.generation) + self._generation_epochs(rest)

    def _generation_epochs(self, trials: int) -> int:
        total = 0
        for before, rung in zip((0, *self.rungs), self.rungs, strict=False):
            total += trials * (rung - before)
            trials = better_half(trials)
        return total


Propose = Callable[[optuna.trial.Trial], Proposal | None]
Train = Callable[[Sequence[Trial], int], None]  # sets `measured` of each, after so many epochs


class Study:
    """Runs a plan; `propose` makes a network of an Optuna trial, None where there is none."""

    def __init__(self, plan: Plan, contest: Contest, propose: Propose, train: Train) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan, self.contest = plan, contest
        self._propose, self._train = propose, train
        self.front = plan.objective == "front"
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up, down] if self.front else [down]
        self._optuna = optuna.create_study(directions=directions)
        self.trials: list[Trial] = []
        self._asked = 0
        self._seen: set[str] = set()

    def run(self) -> list[Trial]:
        """Return every trial, in order; fewer than planned where the space holds no more."""
        left = self.plan.trials
        while left:
            asked = list(self._ask(min(left, self.plan.generation)))
            if not asked:
                break
            self._halve(asked)
            for trial in asked:
                self._optuna.tell(trial.number, self._values(trial))
            left -= len(asked)
        return self.trials

    def enqueue(self, values: dict[str, Any]) -> None:
        """Make the first trial one of these values."""
        self._optuna.enqueue_trial(values)

    def _ask(self, count: int) -> Iterator[Trial]:
        """Yield up to so many new trials under the gate; what is over it is noted."""
        rejected = 0
        while count and rejected < MAX_REJECTED:
            number, self._asked = self._asked, self._asked + 1
            self._optuna.sampler = self._sampler(number)
            proposal = self._propose(self._optuna.ask())
            if proposal is not None and not self._known(proposal):
                trial = Trial(number, proposal)
                self.trials.append(trial)
                if not over_limits(self.contest, proposal.cost):
                    rejected, count = 0, count - 1
                    yield trial
                    continue
                trial.state = "over-budget"
            rejected += 1
            # to TPE a pruned trial without values is the worst of all: it learns where the gate is
            self._optuna.tell(number, state=TrialState.PRUNED)

    def _sampler(self, number: int) -> BaseSampler:
        address = (self.plan.seed, self.plan.name, "ask", number)
        seed = int(generator(*address).integers(2**31))
        return sampler(self.plan.sampler, self.plan.generation, seed)

    def _known(self, proposal: Proposal) -> bool:
        key = repr((proposal.spec, proposal.recipe))
        known = key in self._seen
        self._seen.add(key)
        return known

    def _halve(self, generation: list[Trial]) -> None:
        alive = generation
        for rung in self.plan.rungs:
            self._train(alive, rung)
            if rung != self.plan.rungs[-1]:
                alive = self._better(alive)

    def _better(self, trials: list[Trial]) -> list[Trial]:
        """Return the better half in trial order; the others stop here."""
        for trial in self._ranked(trials)[better_half(len(trials)) :]:
            trial.state = "pruned"
        return [trial for trial in trials if trial.state != "pruned"]

    def _ranked(self, trials: list[Trial]) -> list[Trial]:
        if self.front:
            return by_gain(trials, Trial.metrics, self._gate(trials), self.plan.axis)
        return sorted(trials, key=self._rank)

    def _gate(self, trials: list[Trial]) -> int:
        """Return the contest's limit on the front's axis; without one, a tenth over the most."""
        (name,) = (name for name, (field, _) in LIMITS.items() if field == self.plan.axis)
        limit: int | None = getattr(self.contest, name)
        most = max(getattr(trial.proposal.cost, self.plan.axis) for trial in trials)
        return most + most // 10 + 1 if limit is None else limit

    def _rank(self, trial: Trial) -> tuple[bool, float, int]:
        proxy = proxy_score(self.contest, trial.metrics())
        return trial.number != self.plan.baseline, proxy, trial.number

    def _values(self, trial: Trial) -> list[float]:
        metrics = trial.metrics()
        if self.front:
            return [metrics.f1, float(getattr(metrics, self.plan.axis))]
        return [proxy_score(self.contest, metrics)]
