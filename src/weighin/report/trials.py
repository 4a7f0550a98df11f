"""The records that other stages leave as JSON: the data, trials, epochs and factorized layers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAULT = ("fault", "name", "done")
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
    expected: float | None = None  # the mean score over bootstrap resamples
    under_floor: float | None = None  # share of them


@dataclass(frozen=True)
class Trials:
    """A study: its trials in order, the number of the chosen one and the reason."""

    trials: tuple[Trial, ...]
    chosen: int
    why: str

    def complete(self) -> list[Trial]:
        """Return the trials that were trained to the end and measured."""
        return [t for t in self.trials if t.state == "complete" and t.f1 is not None]

    def contenders(self) -> list[Trial]:
        """Return the front, and the chosen trial if it is not on it, fewest MACs first."""
        chosen = [t for t in self.trials if t.number == self.chosen and t not in self.front()]
        return sorted([*self.front(), *chosen], key=lambda t: (t.macs or 0, t.number))

    def front(self) -> list[Trial]:
        """Return the complete trials that no other beats in both F1 and MACs, fewest MACs first."""
        best: list[Trial] = []
        measured = [t for t in self.complete() if t.macs is not None]
        for trial in sorted(measured, key=lambda t: (t.macs or 0, -(t.f1 or 0), t.number)):
            if not best or (trial.f1 or 0) > (best[-1].f1 or 0):
                best.append(trial)
        return best


@dataclass(frozen=True)
class Data:
    """What prepare found: images by split and class, faults, and images that look alike."""

    files: int
    images: int
    imbalance: float
    splits: Mapping[str, Mapping[str, int]]
    fault_counts: Mapping[str, int]
    faults: tuple[Mapping[str, str], ...]  # fault, name, done; the first of each kind
    alike: int  # pairs
    alike_across: int  # pairs of two classes


@dataclass(frozen=True)
class Layer:
    """A convolution before and after its factorization; `method` is None where it was left."""

    path: str
    shape: tuple[int, ...]
    method: str | None
    ranks: str
    macs_before: int
    macs_after: int
    error: float | None  # of the weights, relative Frobenius norm
    sensitivity: float | None  # F1 lost by factorizing this layer alone


def read_classes(values: Any) -> tuple[str, ...]:
    """Return the class names of a parsed classes.json."""
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        raise ValueError("it must be a list of class names")
    return tuple(values)


def read_data(values: Any) -> Data:
    """Return the facts of prepare's parsed report.json."""
    near = values["near_duplicates"]
    return Data(
        files=int(values["files"]),
        images=int(values["images"]),
        imbalance=float(values["imbalance"]),
        splits={name: _counts(values["splits"][name]) for name in ("train", "validation")},
        fault_counts=_counts(values["fault_counts"]),
        faults=tuple({key: str(row[key]) for key in FAULT} for row in values["faults"]),
        alike=int(near["pairs"]),
        alike_across=int(near["across_classes"]),
    )


def read_choice(values: Any) -> str:
    """Return the reason in a parsed choice.json, as a sentence."""
    why = str(values["why"])
    return f"{why[:1].upper()}{why[1:]}."


def read_recipe(values: Any) -> dict[str, Any]:
    """Return a parsed recipe.json."""
    if not isinstance(values, dict):
        raise ValueError("it must be an object")
    return values


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
        expected=_number(row.get("expected")),
        under_floor=_number(row.get("under_floor")),
    )


def read_history(values: Any) -> list[dict[str, float]]:
    """Return the epochs of a parsed history.json, each with at least `epoch` and `loss`."""
    epochs = [{key: float(row[key]) for key in sorted(row)} for row in values]
    for row in epochs:
        if not {"epoch", "loss"} <= row.keys():
            raise ValueError("an epoch without its number or its loss")
        if not all(map(math.isfinite, row.values())):
            raise ValueError(f"epoch {row['epoch']:g} has a number that is not finite")
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


def _counts(values: Any) -> dict[str, int]:
    return {name: int(many) for name, many in values.items()}


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not math.isfinite(float(value)):
        raise ValueError(f"{value} is not finite")
    return float(value)
