"""Which trial is taken, and why: the lowest expected score.

The expected score is the mean of the contest's score over bootstrap resamples of the validation
images (grading/risk.py), so a network that may fall under the floor pays for it in proportion.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from weighin.grading.risk import bootstrap_f1
from weighin.grading.score import score
from weighin.params import Contest
from weighin.search.generations import Trial
from weighin.search.halving import promise

RESAMPLES = 1000


@dataclass(frozen=True)
class Worth:
    """A complete trial's score, the interval of its F1, and what to expect of it."""

    score: float
    low: float
    high: float
    under_floor: float
    expected: float


def worth(trial: Trial, contest: Contest, seed: int) -> Worth:
    """Return what a measured trial is worth; F1 bounds are the 2.5 and 97.5 % quantiles."""
    assert trial.measured is not None
    metrics = trial.metrics()
    f1s = bootstrap_f1(trial.measured.confusion, RESAMPLES, seed)
    low, high = np.quantile(f1s, (0.025, 0.975)).tolist()
    scores = [score(contest, replace(metrics, f1=f1)).value for f1 in f1s.tolist()]
    under, expected = np.mean(f1s < contest.floor_f1), np.mean(scores)
    numbers = (score(contest, metrics).value, low, high, float(under), float(expected))
    return Worth(*(round(number, 6) for number in numbers))


@dataclass(frozen=True)
class Choice:
    """The complete trials from best to worst, what each is worth, and why the first one leads."""

    ranked: list[Trial]
    worths: dict[int, Worth]
    why: str


def choose(trials: list[Trial], contest: Contest, seed: int) -> Choice:
    """Return the complete trials in order of their expected score, and the reason in words.

    Where every network is likelier than not to be under the floor, the expected score tells nothing
    but the size, and what is missing to the floor decides.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    worths = {trial.number: worth(trial, contest, seed) for trial in complete}
    sunk = all(found.under_floor > 0.5 for found in worths.values())

    def key(trial: Trial) -> tuple[float, int]:
        expected = promise(contest, trial.metrics()) if sunk else worths[trial.number].expected
        return expected, trial.number

    ranked = sorted(complete, key=key)
    return Choice(ranked, worths, _why(ranked, worths, contest, sunk))


def _why(ranked: list[Trial], worths: dict[int, Worth], contest: Contest, sunk: bool) -> str:
    rule = "it has the lowest expected score"
    if sunk:
        rule = f"all are likely under the floor of {contest.floor_f1:g}, and it comes closest"
    first, *others = ranked
    words = f"Trial {first.number} leads the {len(ranked)} that were trained to the end: {rule}"
    words += f" ({_facts(first, worths[first.number], contest)})."
    if others:
        facts = _facts(others[0], worths[others[0].number], contest)
        words += f" The next best is trial {others[0].number} ({facts})."
    return words


def _facts(trial: Trial, found: Worth, contest: Contest) -> str:
    metrics = trial.metrics()
    return (
        f"score {found.expected:.4f} expected, {found.score:.4f} measured; validation F1 "
        f"{metrics.f1:.3f}, 95 % between {found.low:.3f} and {found.high:.3f}; {metrics.macs:,} "
        f"MACs; {found.under_floor:.1%} risk of an F1 under {contest.floor_f1:g}"
    )


def record(trials: list[Trial], choice: Choice) -> dict[str, Any]:
    """Return trials.json: every trial, the chosen one and why (see report/trials.py)."""
    rows = [_row(trial, choice.worths.get(trial.number)) for trial in trials]
    return {"trials": rows, "chosen": choice.ranked[0].number, "why": choice.why}


def _row(trial: Trial, found: Worth | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state,
        "macs": trial.proposal.cost.macs,
        "parameters": trial.proposal.cost.parameters,
        "params": trial.proposal.params,
        "f1": None,
        "score": None,
    }
    if trial.measured is not None:
        row |= {"f1": trial.metrics().f1, "epochs": trial.measured.epochs}
        row |= {"network": trial.proposal.spec.to_yaml()}
    if found is not None:
        row |= asdict(found)
    return row
