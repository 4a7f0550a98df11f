"""The page's first section: the score, how it is made, and how sure it is."""

from weighin.params import Params
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import Facts
from weighin.report.markup import Markup, element, joined, paragraph, section, table
from weighin.report.rules import TERMS, rules
from weighin.report.words import SEEN, UNMEASURED, interval, measured, share, split_name, weighed

Found = dict[str, Evaluation]
Card = tuple[str, str, str]  # name, value, note


def verdict(facts: Facts, found: Found, params: Params) -> Markup:
    """Return the figures that decide: score, F1, distance to the floor, MACs, parameters."""
    floor = rules(params.contest).floor
    parts = [
        _grid(f"On {split_name(split)}", _cards(evaluation, floor))
        for split, evaluation in found.items()
    ]
    parts.append(_grid("The model", _sizes(facts, params)))
    if params.train.all_data:
        parts.append(element("p", SEEN, class_="warning"))
    if found:
        parts.append(_made(found, params))
    else:
        parts.append(element("p", UNMEASURED, class_="warning"))
    return section("verdict", "Verdict", *parts)


def _cards(found: Evaluation, floor: float | None) -> list[Card]:
    spread = interval(found.score_low, found.score_high)
    cards = [("Score", f"{found.score.value:.4f}", f"95 %: {spread}")]
    spread = interval(found.risk.low, found.risk.high)
    cards.append(("Macro F1", f"{found.table.f1:.4f}", f"95 %: {spread}"))
    if floor is not None:
        distance = f"{found.table.f1 - floor:+.4f}".replace("-", "−")
        cards.append((f"Above the floor of {floor:g}", distance, _risk(found)))
    return cards


def _risk(found: Evaluation) -> str:
    odds = share(found.risk.under_floor) if found.risk.under_floor else "none"
    return f"{odds} of {found.risk.resamples:,} resamples under it"


def _sizes(facts: Facts, params: Params) -> list[Card]:
    height, width = facts.model.size
    size = f"input {height} × {width} pixels"
    return [
        ("MACs an image", f"{facts.count.macs:,}", weighed(facts, params.contest)),
        ("Parameters", f"{facts.count.parameters:,}", size),
    ]


def _grid(title: str, cards: list[Card]) -> Markup:
    blocks = (
        element("div", element("dt", name), element("dd", element("strong", value), note))
        for name, value, note in cards
    )
    return joined([element("h3", title), element("dl", *blocks, class_="figures")])


def _made(found: Found, params: Params) -> Markup:
    """Return the formula, and its terms for each split."""
    terms = list(next(iter(found.values())).score.parts)
    rows = [
        [TERMS[term], *(measured(evaluation.score.parts[term]) for evaluation in found.values())]
        for term in terms
    ]
    rows.append(["score", *(measured(evaluation.score.value) for evaluation in found.values())])
    formula = f"Score, lower is better: {rules(params.contest).formula}"
    title = f"The parts of the score ({params.contest.score})"
    return joined([paragraph(formula), table(title, ["part", *found], rows)])
