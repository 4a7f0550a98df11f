"""The records that other stages leave as JSON: trials, epochs and factorised layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STATES = ("complete", "pruned", "over-budget")


@dataclass(frozen=True)
class Trial:
    """One network or recipe that was tried; what was never measured is None."""

    number: int
    state: str
    macs: int | None
    f1: float | None
    score: float | None
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Trials:
    """A study: its trials in order, the number of the chosen one and the reason."""

    trials: tuple[Trial, ...]
    chosen: int
    why: str

    def complete(self) -> list[Trial]:
        """Return the trials that were trained to the end and measured."""
        return [t for t in self.trials if t.state == "complete" and t.f1 is not None]

    def front(self) -> list[Trial]:
        """Return the complete trials that no other beats in both F1 and MACs, fewest MACs first."""
        best: list[Trial] = []
        measured = [t for t in self.complete() if t.macs is not None]
        for trial in sorted(measured, key=lambda t: (t.macs or 0, -(t.f1 or 0), t.number)):
            if not best or (trial.f1 or 0) > (best[-1].f1 or 0):
                best.append(trial)
        return best


@dataclass(frozen=True)
class Layer:
    """A convolution before and after its factorisation; `method` is None where it was left."""

    path: str
    shape: tuple[int, ...]
    method: str | None
    ranks: str
    macs_before: int
    macs_after: int
    error: float | None  # of the weights, relative Frobenius norm
    sensitivity: float | None  # F1 lost by factorising this layer alone


def read_trials(values: Any) -> Trials:
    """Return the study in a parsed trials.json.

    Raises:
        KeyError, TypeError, ValueError: it is of another form.
    """
    trials = tuple(map(_trial, values["trials"]))
    chosen = int(values["chosen"])
    if chosen not in {trial.number for trial in trials}:
        raise ValueError(f"the chosen trial {chosen} is not among the trials")
    return Trials(trials, chosen, str(values["why"]))


def _trial(row: Any) -> Trial:
    if row["state"] not in STATES:
        raise ValueError(f'the state of trial {row["number"]} is "{row["state"]}"')
    return Trial(
        number=int(row["number"]),
        state=row["state"],
        macs=None if row.get("macs") is None else int(row["macs"]),
        f1=_number(row.get("f1")),
        score=_number(row.get("score")),
        params=dict(row.get("params") or {}),
    )


def read_history(values: Any) -> list[dict[str, float]]:
    """Return the epochs of a parsed history.json, each with at least `epoch` and `loss`."""
    epochs = [{key: float(row[key]) for key in sorted(row)} for row in values]
    for row in epochs:
        if not {"epoch", "loss"} <= row.keys():
            raise ValueError("an epoch without its number or its loss")
    return epochs


def read_layers(values: Any) -> tuple[Layer, ...]:
    """Return the layers of a parsed layers.json."""
    return tuple(
        Layer(
            path=str(row["path"]),
            shape=tuple(int(side) for side in row["shape"]),
            method=row.get("method") or None,
            ranks=_ranks(row.get("ranks")),
            macs_before=int(row["macs_before"]),
            macs_after=int(row["macs_after"]),
            error=_number(row.get("error")),
            sensitivity=_number(row.get("sensitivity")),
        )
        for row in values
    )


def _ranks(value: Any) -> str:
    if value is None:
        return ""
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
