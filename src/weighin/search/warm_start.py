"""Warm starts: a trial begins with the weights of the finished trial that it shares most with.

Networks of one space have many layers alike, and training is what a search pays for. A weight is
shared where both networks have one of its name and shape; the others begin as they would without.
Weights are inherited in training alone: what is chosen is trained from the start.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from weighin.network.build import build, initialize
from weighin.search.study import Trial
from weighin.training.weights import Weights, module_weights

Shapes = Mapping[str, tuple[int, ...]]
LEAST = 0.3  # of a network's numbers that are worth inheriting


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
