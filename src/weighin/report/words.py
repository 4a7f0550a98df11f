"""Numbers as people read them, the same on the page and on the model card."""

from weighin.params import Contest
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import Facts


def share(value: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """Return a 95 % interval to four digits."""
    return f"{low:.4f} to {high:.4f}"


def measured(value: float | None, digits: int = 4) -> str:
    """Return a number, or a dash where there is none (NaN too)."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def risk(found: Evaluation, contest: Contest) -> str:
    """Return how many resamples were under the floor: a count, never a certainty."""
    chance = found.risk.under_floor
    many = found.risk.resamples
    part = f"{share(chance)} of {many:,}" if chance else f"none of {many:,}"
    return f"{part} resamples fell under the floor of {contest.floor_f1:g}"


def macs_of_reference(facts: Facts, contest: Contest) -> str:
    """Return the MACs as a share of the reference network's."""
    part = share(facts.count.macs / contest.reference_macs)
    return f"{part} of the reference's {contest.reference_macs:,}"


def split_name(split: str) -> str:
    """Return what a split is called in a sentence."""
    return {"validation": "the validation split", "test": "the test folder"}[split]


SEEN = (
    "The network was trained on the validation split too (train.all_data), so the figures on that "
    "split are those of images it has seen: they say nothing about unseen ones."
)
UNMEASURED = "No F1 is known: there are neither validation logits nor a truth for the test folder."
