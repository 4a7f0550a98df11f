"""From an Optuna trial to a network of a space."""

from collections.abc import Sequence
from typing import Any, Protocol

from weighin.network.spec import NetworkSpec, Row
from weighin.search.space import PASS, RowSpace, Space


class Suggests(Protocol):
    """What is needed of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices, which have no order."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""


class Draws:
    """Draws choices by name and remembers them; a single choice is no draw."""

    def __init__(self, trial: Suggests) -> None:
        self._trial = trial
        self.values: dict[str, Any] = {}

    def pick(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of `choices`: names have no order, anything else has the one it stands in."""
        if len(choices) == 1:
            return choices[0]
        if name in self.values:
            return self.values[name]
        if any(isinstance(choice, str) for choice in choices):
            value = self._trial.suggest_categorical(name, choices)
        else:
            value = choices[self._trial.suggest_int(name, 0, len(choices) - 1)]
        self.values[name] = value
        return value


def draw(space: Space, draws: Draws) -> NetworkSpec:
    """Return one network of `space`."""
    size = draws.pick("input", space.input)
    width = draws.pick("width", space.width)
    rows = (_row(row, draws) for row in space.rows)
    return NetworkSpec(size, width, tuple(row for row in rows if row is not None))


def _row(row: RowSpace, draws: Draws) -> Row | None:
    block = draws.pick(f"{row.name}.block", tuple(row.blocks))
    if block == PASS:
        return None
    repeats = draws.pick(f"{row.name}.repeats", row.repeats)
    args = (draws.pick(arg.name, arg.choices) for arg in row.blocks[block])
    return Row(repeats, block, tuple(args))
