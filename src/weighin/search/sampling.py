"""From Optuna to a network of a space: the seeded sampler of an ask, and the choices of a trial."""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from weighin.network.spec import NetworkSpec, Row
from weighin.search.space import PASS, RowSpace, Space

STARTUP = 8  # random trials before TPE has something to model


def sampler(name: str, generation: int, seed: int) -> BaseSampler:
    """Return the sampler of that name for studies of so many trials a generation.

    To TPE a generation's running trials count as bad ("constant liar"), so that it spreads them.
    """
    if name == "random":
        return RandomSampler(seed=seed)
    if name == "nsga2":
        return NSGAIISampler(population_size=max(2, generation), seed=seed)
    with warnings.catch_warnings():  # Optuna calls group and constant_liar experimental
        warnings.simplefilter("ignore")
        return TPESampler(
            n_startup_trials=max(STARTUP, generation),
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


class Suggests(Protocol):
    """What is needed of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices, which have no order."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""


def sample_network(space: Space, trial: Suggests) -> tuple[NetworkSpec, dict[str, Any]]:
    """Return one network of `space`, and the values that `trial` chose for it, by name."""
    choices = _Choices(trial)
    size, width = choices.pick("input", space.input), choices.pick("width", space.width)
    rows = (_sample_row(row, choices) for row in space.rows)
    return NetworkSpec(size, width, tuple(row for row in rows if row)), choices.values


def _sample_row(row: RowSpace, choices: "_Choices") -> Row | None:
    block = choices.pick(f"{row.name}.block", tuple(row.blocks))
    if block == PASS:
        return None
    repeats = choices.pick(f"{row.name}.repeats", row.repeats)
    args = (choices.pick(arg.name, arg.choices) for arg in row.blocks[block])
    return Row(repeats, block, tuple(args))


class _Choices:
    """Makes choices by name and remembers them; nothing is chosen from a single value."""

    def __init__(self, trial: Suggests) -> None:
        self._trial = trial
        self.values: dict[str, Any] = {}

    def pick(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of `choices`: names have no order, anything else has the one it stands in."""
        if len(choices) == 1:
            return choices[0]
        if name not in self.values:
            if any(isinstance(choice, str) for choice in choices):
                value = self._trial.suggest_categorical(name, choices)
            else:
                value = choices[self._trial.suggest_int(name, 0, len(choices) - 1)]
            self.values[name] = value
        return self.values[name]
