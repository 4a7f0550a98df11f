"""Trains the trials of a study through workers, and keeps what is finished.

Warm starts: a trial may begin with the weights of the finished trial that it shares most with.
Networks of one space have many layers alike, and training is what a search pays for. A weight is
shared where both networks have one of its name and shape; the others begin as they would without.
Weights are inherited in training alone: what is chosen is trained from the start.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.files import read_json
from weighin.network.build import build, initialize
from weighin.params import Contest, Recipe
from weighin.progress import Progress, say
from weighin.search.evaluation import EvaluationCache, Measured, Task, evaluate
from weighin.search.study import Plan, Trial, proxy_score
from weighin.search.workers import Workers
from weighin.training.augment import weaker
from weighin.training.device import device_facts
from weighin.training.trainer import Job
from weighin.training.weights import Weights, module_weights

Shapes = Mapping[str, tuple[int, ...]]
LEAST = 0.3  # of a network's numbers that are worth inheriting at a warm start


class TrialRunner:
    """Called with trials and an epoch, trains them up to it; see `study.Train`."""

    def __init__(
        self,
        plan: Plan,
        contest: Contest,
        packed: Path,
        workers: Workers,
        kept: Path,
        start: Weights | None = None,
    ) -> None:
        """Take the plan, and the weights that every trial starts from."""
        self.plan, self.contest, self.packed, self.start = plan, contest, packed, start
        self._workers, self._cache = workers, EvaluationCache(kept, packed)
        self._progress = Progress(f"{plan.name}: epochs", plan.epochs())
        self._lowest = float("inf")
        classes = len(read_json(packed / "classes.json"))
        self._family = Family(classes, plan.seed, plan.name)
        self._starts: dict[int, Weights] = {}  # of this generation
        self._keep = plan.warm_start

    def __call__(self, trials: Sequence[Trial], until: int) -> None:
        """Set `measured` of each trial to what it is after `until` epochs."""
        if self.plan.warm_start and until == self.plan.rungs[0]:
            self._starts.clear()
            self._choose_parents(trials)
        self._train(trials, until)
        if self.plan.warm_start and until == self.plan.rungs[-1]:
            for trial in trials:
                self._family.add(trial)

    def _choose_parents(self, trials: Sequence[Trial]) -> None:
        """Set the parent of each new trial, of those whose training did not diverge."""
        while True:
            for trial in trials:
                trial.parent = self._family.parent(trial)
            numbers = sorted({trial.parent for trial in trials if trial.parent is not None})
            parents = self._last_weights([self._family.finished(number) for number in numbers])
            diverged = [number for number, weights in parents.items() if not is_finite(weights)]
            if not diverged:
                break
            for number in diverged:
                self._family.drop(number)
        for trial in trials:
            if trial.parent is not None:
                self._inherit(trial, parents[trial.parent])

    def _train(self, trials: Sequence[Trial], until: int) -> None:
        tasks = [self._task(trial, until) for trial in trials]
        found = [self._cache.find(task) for task in tasks]
        missing = [place for place, measured in enumerate(found) if measured is None]
        for trial, measured in zip(trials, found, strict=True):
            if measured is not None:
                self._note(trial, measured, kept=True)
        missing.sort(key=lambda place: -trials[place].proposal.cost.macs)  # short ones fill the end
        waiting = [self._resumed(trials[place], tasks[place]) for place in missing]
        for place, outcome in self._workers.run(evaluate, waiting):
            self._cache.add(tasks[missing[place]], outcome)
            self._note(trials[missing[place]], outcome.measured)
        if until == self.plan.rungs[-1]:
            self._cache.trim()

    def again(self, trials: Sequence[Trial], splits: range) -> dict[int, list[Trial]]:
        """Return the trials, by number, as trained on splits to the end, from their own start."""
        again = [
            replace(trial, measured=None, split=split, parent=None)
            for split in splits
            for trial in trials
        ]
        epochs, self._keep = self.plan.rungs[-1], False
        self._progress = Progress(f"{self.plan.name}: epochs, splits", len(again) * epochs)
        self._train(again, epochs)
        return {one.number: [t for t in again if t.number == one.number] for one in trials}

    def _task(self, trial: Trial, until: int, state: bytes = b"") -> Task:
        proposal, split = trial.proposal, ("split", trial.split) if trial.split else ()
        job = Job(
            proposal.spec,
            shortened(proposal.recipe, self.plan.shards, self.plan.augment),
            self.plan.rungs[-1],
            self.packed,
            (self.plan.seed, self.plan.name, trial.number, *split),
            split=trial.split,
            start=self._start(trial),
            validations=0,  # it is measured when it comes back
        )
        return Task(trial.number, job, until, state, device_facts(job.recipe), self._keep)

    def _start(self, trial: Trial) -> Weights | None:
        if trial.parent is None:
            return self.start
        if trial.number not in self._starts:  # of an earlier generation
            (parent,) = self._last_weights([self._family.finished(trial.parent)]).values()
            self._inherit(trial, parent)
        return self._starts[trial.number]

    def _inherit(self, trial: Trial, parent: Weights) -> None:
        self._starts[trial.number] = inherited(self._family.initial(trial), parent)

    def _last_weights(self, trials: Sequence[Trial]) -> dict[int, Weights]:
        """Return the weights of finished trials; those that are not kept any more train again."""
        tasks = {trial.number: self._task(trial, self.plan.rungs[-1]) for trial in trials}
        found = {number: self._cache.weights(task) for number, task in tasks.items()}
        lost = [number for number, weights in found.items() if weights is None]
        if lost:
            say(f"{self.plan.name}: {len(lost)} trials train again: their weights are not kept")
        for place, outcome in self._workers.run(evaluate, [tasks[number] for number in lost]):
            self._cache.add(tasks[lost[place]], outcome)
            found[lost[place]] = self._cache.weights(tasks[lost[place]])
        return {number: weights for number, weights in found.items() if weights is not None}

    def _resumed(self, trial: Trial, task: Task) -> Task:
        """Return the task with the state of the trial's last rung; without, it begins again."""
        if trial.measured is None:
            return task
        before = self._task(trial, trial.measured.epochs)
        return self._task(trial, task.until, self._cache.state(before) or b"")

    def _note(self, trial: Trial, measured: Measured, kept: bool = False) -> None:
        epochs = measured.epochs - (trial.measured.epochs if trial.measured else 0)
        trial.measured = measured
        metrics = trial.metrics()
        if measured.epochs == self.plan.rungs[-1]:
            self._lowest = min(self._lowest, proxy_score(self.contest, metrics))
        if kept:
            self._progress.skip(epochs)
            return
        proxy = f"proxy score {proxy_score(self.contest, metrics):.4f}"
        lowest = "" if self._lowest == float("inf") else f", lowest {self._lowest:.4f}"
        where = f" on split {trial.split + 1}" if trial.split else ""
        facts = f"{metrics.macs:,} MACs, F1 {metrics.f1:.3f}, {proxy}{lowest}"
        self._progress.step(f"trial {trial.number}{where}: {facts}", epochs)


def shortened(recipe: Recipe, shards: int, share: float = 1.0) -> Recipe:
    """Return the recipe for a training of few epochs: fewer shards a batch, weaker augmentation.

    The learning rate goes with the square root of the batch (Krizhevsky, "One weird trick", 2014).
    """
    few = min(shards, recipe.shards)
    lr = recipe.lr * math.sqrt(few / recipe.shards)
    return replace(recipe, shards=few, lr=lr, augment=weaker(recipe.augment, share))


class Family:
    """The finished trials that new ones may start from."""

    def __init__(self, classes: int, seed: int, study: str) -> None:
        """Take how many classes there are, and the seed and the name of the study."""
        self._classes, self._address = classes, (seed, study)
        self._finished: dict[int, tuple[Trial, Shapes]] = {}

    def add(self, trial: Trial) -> None:
        """Let later trials start from a finished one."""
        shapes = {name: array.shape for name, array in self.initial(trial).items()}
        self._finished[trial.number] = trial, shapes

    def parent(self, trial: Trial) -> int | None:
        """Return the finished trial that shares most with a new one, the first of equals."""
        own = self.initial(trial)
        shared = {
            number: sum(
                array.size for name, array in own.items() if shapes.get(name) == array.shape
            )
            for number, (_, shapes) in self._finished.items()
        }
        best = max(shared, key=lambda number: (shared[number], -number), default=None)
        least = LEAST * sum(array.size for array in own.values())
        return None if best is None or shared[best] < least else best

    def drop(self, number: int) -> None:
        """Let no trial start from a finished one any more."""
        del self._finished[number]

    def finished(self, number: int) -> Trial:
        """Return a finished trial."""
        return self._finished[number][0]

    def initial(self, trial: Trial) -> dict[str, npt.NDArray[np.float32]]:
        """Return the weights that a trial has without a parent."""
        module = build(trial.proposal.spec, self._classes)
        initialize(module, *self._address, trial.number)
        return module_weights(module)


def is_finite(weights: Weights) -> bool:
    """Whether all weights are numbers: those of a training that diverged are not."""
    return all(bool(np.isfinite(array).all()) for array in weights.values())


def inherited(own: Weights, parent: Weights) -> Weights:
    """Return a network's own weights, those that it shares being the parent's."""
    shared = {
        name: parent[name]
        for name, array in own.items()
        if name in parent and parent[name].shape == array.shape
    }
    return {**own, **shared}
