"""The contests' rules in words, one for each formula of `weighin.grading.score.FORMULAS`."""

from collections.abc import Callable
from dataclasses import dataclass

from weighin.grading.score import OUT_OF_CONTEST
from weighin.params import Contest


@dataclass(frozen=True)
class Rules:
    """How a score is made, and the numbers that a model is held against."""

    formula: str
    floor: float | None = None  # F1 under which a model is lost
    macs: tuple[int, str] | None = None  # the MACs that a model's are a share of, and their name
    ceiling: int | None = None  # MACs above which a model is out


TERMS = {
    "macs": "MACs part",
    "f1": "F1 part",
    "error": "error rate",
    "over_budget": "over the ceiling",
    "parameters": "parameters part",
    "operations": "operations part",
    "under_floor": "under the floor",
}


def rules(contest: Contest) -> Rules:
    """Return the rules of the contest whose formula is `contest.score`."""
    return RULES[contest.score](contest)


def _waste(contest: Contest) -> Rules:
    worth = round(0.01 / contest.reference_f1 * contest.reference_macs)
    formula = (
        f"MACs / {contest.reference_macs:,} + the F1 part, which is 1 − F1 / "
        f"{contest.reference_f1:g}, half of that once F1 is past {contest.reference_f1:g}, and 1 "
        f"under the floor of {contest.floor_f1:g}. In between, 0.01 of F1 is worth {worth:,} MACs."
    )
    return Rules(formula, contest.floor_f1, (contest.reference_macs, "the reference's"))


def _f1(contest: Contest) -> Rules:
    return Rules("1 − macro F1. MACs do not count.")


def _accuracy(contest: Contest) -> Rules:
    formula = (
        f"the share of images labelled wrongly, by a model of at most {contest.max_macs:,} MACs; "
        f"above that ceiling {OUT_OF_CONTEST:g} is added."
    )
    return Rules(formula, macs=(contest.max_macs, "the ceiling of"), ceiling=contest.max_macs)


def _micronet(contest: Contest) -> Rules:
    formula = (
        f"parameters / {contest.reference_params:,} + MACs / {contest.reference_macs:,}, of a "
        f"model whose F1 reaches {contest.floor_f1:g}; under that floor {OUT_OF_CONTEST:g} is "
        "added."
    )
    return Rules(formula, contest.floor_f1, (contest.reference_macs, "the reference's"))


RULES: dict[str, Callable[[Contest], Rules]] = {
    "waste": _waste,
    "f1": _f1,
    "accuracy": _accuracy,
    "micronet": _micronet,
}
