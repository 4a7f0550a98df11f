"""A study in generations: ask for some trials, train them in rungs, tell what came of them.

Every ask has a fresh sampler seeded from (seed, trial number), and results are told in the order of
the trials, so a study is the same for any number of workers and after any number of restarts. A
rejected ask (over the gate, no network, a network that was asked before) costs no training and does
not count as a trial.

A generation trains to the first rung, its better half goes on to the next (halving.py). Those that
stop are told with the F1 that they have.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from weighin.determinism import generator
from weighin.grading.score import LIMITS, Cost, Metrics, over_limits
from weighin.network.spec import NetworkSpec
from weighin.params import Contest, Recipe
from weighin.search.evaluation import Measured
from weighin.search.halving import better_half, by_gain, proxy_score
from weighin.search.space import sampler

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
