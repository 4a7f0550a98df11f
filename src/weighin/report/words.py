"""Numbers as people read them, the same on the page and on the model card."""

from collections.abc import Sequence

from weighin.params import Contest
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import Facts
from weighin.report.rules import rules
from weighin.report.trials import Layer, Trials


def share(value: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """Return a 95 % interval to four digits."""
    return f"{low:.4f} to {high:.4f}"


def several(many: int, noun: str) -> str:
    """Return a count and its noun in the right number."""
    return f"{many:,} {noun}" if many == 1 else f"{many:,} {noun}s"


def measured(value: float | None, digits: int = 4) -> str:
    """Return a number, or a dash where there is none (NaN too)."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def risk(found: Evaluation, floor: float) -> str:
    """Return how many resamples were under the floor: a count, never a certainty."""
    chance = found.risk.under_floor
    many = found.risk.resamples
    part = f"{share(chance)} of {many:,}" if chance else f"none of {many:,}"
    return f"{part} resamples fell under the floor of {floor:g}"


def weighed(facts: Facts, contest: Contest) -> str:
    """Return the MACs as a share of what the contest holds them against."""
    against = rules(contest).macs
    if against is None:
        return "not part of the score"
    whole, name = against
    return f"{share(facts.count.macs / whole)} of {name} {whole:,}"


def study(found: Trials) -> str:
    """Return what was tried and why the chosen one was."""
    states = [trial.state for trial in found.trials]
    counted = (f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    tried = several(len(states), "trial")
    return f"{tried}: {', '.join(counted)}. Chosen: {found.chosen}. {found.why}"


def compressed(layers: Sequence[Layer]) -> str:
    """Return what the factorization saved."""
    before = sum(layer.macs_before for layer in layers)
    after = sum(layer.macs_after for layer in layers)
    kept = f" ({share(after / before)})" if before else ""
    changed = sum(layer.method is not None for layer in layers)
    if not changed:
        return "No layer was factorized."
    return (
        f"{changed} of {len(layers)} layers were factorized; together they went from "
        f"{before:,} to {after:,} MACs{kept}."
    )


def split_name(split: str) -> str:
    """Return what a split is called in a sentence."""
    return {"validation": "the validation split", "test": "the test folder"}[split]


SEEN = (
    "The network was trained on the validation split too (train.all_data), so the figures on that "
    "split are those of images it has seen: they say nothing about unseen ones."
)
UNMEASURED = "No F1 is known: there are neither validation logits nor a truth for the test folder."
