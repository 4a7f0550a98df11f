"""The contests' formulas, by name: from a model's figures to one number, lower is better.

Another contest is another function in `FORMULAS` and another name in `params.Contest.score`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from weighin.params import Contest

OUT_OF_CONTEST = 1000.0  # added when a hard rule is broken: more than any entry that keeps them

WASTE = Contest(
    score="waste",
    max_macs=20_000_000,
    reference_macs=13_865_375,
    reference_params=4_214_841,
    reference_f1=0.83656,
    floor_f1=0.5,
)


@dataclass(frozen=True)
class Metrics:
    """What a model is scored on: shares from 0 to 1, MACs of one image, parameters."""

    f1: float
    accuracy: float
    macs: int
    parameters: int


@dataclass(frozen=True)
class Score:
    """A contest's number and the terms that add up to it."""

    value: float
    parts: dict[str, float]


def waste(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return the waste-sorting contest's terms.

    macs / reference_macs + f1 term, which is 1 under the floor, 1 - f1 / reference_f1 above it,
    and half of that (negative) past the reference. Constants and four published rows that the
    formula meets to four digits: LEADERBOARD in tests/grading/test_score.py.
    """
    quality = 1 - metrics.f1 / contest.reference_f1
    if metrics.f1 < contest.floor_f1:
        quality = 1.0
    elif metrics.f1 >= contest.reference_f1:
        quality *= 0.5
    return {"macs": metrics.macs / contest.reference_macs, "f1": quality}


def f1(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return 1 - macro F1: a contest of quality alone."""
    return {"f1": 1 - metrics.f1}


def accuracy(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return the error rate of a model within `max_macs`; above it the model is out.

    The form of the Visual Wake Words challenge (Chowdhery et al., 2019, arXiv:1906.05721): the
    highest accuracy under a ceiling on multiply-adds.
    """
    over = OUT_OF_CONTEST if metrics.macs > contest.max_macs else 0.0
    return {"error": 1 - metrics.accuracy, "over_budget": over}


def micronet(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return parameters and operations, each over a reference network's, once good enough.

    The MicroNet challenge (Gale et al., NeurIPS 2019 competition track): parameter storage over
    the reference's plus mathematical operations over the reference's, for models that reach a
    required quality (there top-1 accuracy, here `floor_f1`). Two operations are one MAC in both
    the model and the reference, so their ratio is that of the MACs.
    """
    under = OUT_OF_CONTEST if metrics.f1 < contest.floor_f1 else 0.0
    return {
        "parameters": metrics.parameters / contest.reference_params,
        "operations": metrics.macs / contest.reference_macs,
        "under_floor": under,
    }


FORMULAS: dict[str, Callable[[Contest, Metrics], dict[str, float]]] = {
    "waste": waste,
    "f1": f1,
    "accuracy": accuracy,
    "micronet": micronet,
}


def score(contest: Contest, metrics: Metrics) -> Score:
    """Return the contest's score of a model and its terms, whose sum it is."""
    parts = FORMULAS[contest.score](contest, metrics)
    return Score(value=sum(parts.values()), parts=parts)


def has_floor(contest: Contest) -> bool:
    """Whether the contest's score depends on `floor_f1`."""
    metrics = Metrics(0.5, 0.5, 1, 1)
    above, below = (replace(contest, floor_f1=floor) for floor in (0.0, 1.0))
    return score(above, metrics).value != score(below, metrics).value
