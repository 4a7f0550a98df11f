"""The page's sections on the verdict, the search, the training, the compression, the mistakes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weighin.params import Params
from weighin.report.charts import Charts, shown
from weighin.report.evaluation import Evaluation, worst_mistakes
from weighin.report.gallery import gallery
from weighin.report.inputs import Facts
from weighin.report.markup import Markup, element, paragraph, section, table
from weighin.report.trials import Trials
from weighin.report.words import (
    SEEN,
    UNMEASURED,
    interval,
    macs_of_reference,
    measured,
    risk,
    share,
    split_name,
)

Found = dict[str, Evaluation]


def verdict(facts: Facts, found: Found, params: Params) -> Markup:
    """Return the figures that decide: score, F1 and MACs against the reference."""
    parts = [_headline(facts, found, params)]
    for split, evaluation in found.items():
        odds = risk(evaluation, params.contest)
        parts.append(paragraph(f"On {split_name(split)}, by bootstrap over its images, {odds}."))
    if params.train.all_data:
        parts.append(element("p", SEEN, class_="warning"))
    if not found:
        parts.append(element("p", UNMEASURED, class_="warning"))
    parts += [_terms(found)] if found else []
    return section("verdict", "Verdict", *parts)


def _headline(facts: Facts, found: Found, params: Params) -> Markup:
    cards = []
    for split, evaluation in found.items():
        spread = interval(evaluation.score_low, evaluation.score_high)
        where = split_name(split)
        cards.append((f"Score on {where}", f"{evaluation.score.value:.4f}", f"95 %: {spread}"))
        spread = interval(evaluation.risk.low, evaluation.risk.high)
        cards.append((f"Macro F1 on {where}", f"{evaluation.table.f1:.4f}", f"95 %: {spread}"))
    cards.append(
        ("MACs an image", f"{facts.count.macs:,}", macs_of_reference(facts, params.contest))
    )
    height, width = facts.model.size
    size = f"input {height} × {width} pixels"
    cards.append(("Parameters", f"{facts.count.parameters:,}", size))
    blocks = (
        element("div", element("dt", name), element("dd", element("strong", value), note))
        for name, value, note in cards
    )
    return element("dl", *blocks, class_="figures")


def _terms(found: Found) -> Markup:
    names = list(next(iter(found.values())).score.parts)
    rows = [
        [name, *(measured(evaluation.score.parts[name]) for evaluation in found.values())]
        for name in names
    ]
    rows.append(["score", *(measured(evaluation.score.value) for evaluation in found.values())])
    return table("The terms of the score; lower is better", ["term", *found], rows)


def search(facts: Facts, charts: Charts) -> Markup:
    """Return what was tried, and why the chosen one was."""
    if not facts.search and not facts.tune:
        return Markup()
    parts: list[str] = []
    if facts.search:
        parts += [paragraph(_study(facts.search)), shown(charts, "search"), _front(facts.search)]
    if facts.tune:
        parts += [element("h3", "Recipe"), paragraph(_study(facts.tune))]
    if facts.recipe:
        rows = [[name, str(value)] for name, value in _flat(facts.recipe)]
        parts.append(_folded("The recipe", table("Recipe", ["parameter", "value"], rows)))
    return section("search", "Search", *parts)


def _study(found: Trials) -> str:
    states = [trial.state for trial in found.trials]
    counted = (f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    return f"{len(states):,} trials: {', '.join(counted)}. Chosen: {found.chosen}. {found.why}"


def _front(found: Trials) -> Markup:
    rows = [
        [
            f"{trial.number}{' (chosen)' if trial.number == found.chosen else ''}",
            f"{trial.macs:,}",
            measured(trial.f1),
            measured(trial.score),
        ]
        for trial in found.front()
    ]
    return table("The front: no trial is better in both", ["trial", "MACs", "F1", "score"], rows)


def training(facts: Facts, charts: Charts) -> Markup:
    """Return the curves of each training, and the network's rows."""
    parts: list[str] = [shown(charts, stage) for stage in facts.histories]
    if facts.network:
        rows = element("pre", element("code", facts.network), tabindex="0")
        parts.append(_folded("The network's rows", rows))
    return section("training", "Training", *parts) if parts else Markup()


def compression(facts: Facts, charts: Charts) -> Markup:
    """Return what the factorisation saved, layer by layer."""
    if not facts.layers:
        return Markup()
    before = sum(layer.macs_before for layer in facts.layers)
    after = sum(layer.macs_after for layer in facts.layers)
    kept = share(after / before) if before else "–"
    changed = sum(layer.method is not None for layer in facts.layers)
    rows = [
        [
            layer.path,
            " × ".join(map(str, layer.shape)),
            layer.method or "left as it was",
            layer.ranks,
            f"{layer.macs_before:,}",
            f"{layer.macs_after:,}",
            measured(layer.error, 3),
            measured(layer.sensitivity),
        ]
        for layer in facts.layers
    ]
    header = ["layer", "shape", "method", "ranks", "MACs before", "after", "error", "sensitivity"]
    return section(
        "compression",
        "Compression",
        paragraph(
            f"{changed} of {len(facts.layers)} layers were factorised; together they went from "
            f"{before:,} to {after:,} MACs ({kept})."
        ),
        shown(charts, "layers"),
        _folded("Every layer", table("Layers; error is relative to the weights", header, rows)),
    )


def mistakes(facts: Facts, found: Found, charts: Charts, params: Params, root: Path) -> Markup:
    """Return where the network errs: tables by class, calibration, the surest mistakes."""
    parts: list[str] = []
    for split, evaluation in found.items():
        parts += [_classes(split, evaluation), shown(charts, f"confusion-{split}")]
    if facts.validation:
        wrong = worst_mistakes(facts.validation, params.report.mistakes)
        parts.append(shown(charts, "calibration"))
        if wrong:
            title = f"The {len(wrong)} surest mistakes on the validation split"
            parts += [element("h3", title), gallery(wrong, root)]
    return section("mistakes", "Mistakes", *parts) if parts else Markup()


def _classes(split: str, found: Evaluation) -> Markup:
    rows = [
        [
            row.name,
            f"{row.images:,}",
            f"{row.predicted:,}",
            measured(row.precision, 3),
            measured(row.recall, 3),
            measured(row.f1, 3),
        ]
        for row in found.table.rows()
    ]
    header = ["class", "images", "labelled so", "precision", "recall", "F1"]
    return table(f"Each class on {split_name(split)}", header, rows)


def _folded(title: str, inside: Markup) -> Markup:
    return element("details", element("summary", title), inside)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name in sorted(values):
        value = values[name]
        inner = isinstance(value, Mapping)
        rows += _flat(value, f"{prefix}{name}.") if inner else [(prefix + name, value)]
    return rows


def contents(sections: list[tuple[str, str, Markup]]) -> Markup:
    """Return links to the sections that are there."""
    links = (
        element("li", element("a", title, href=f"#{anchor}"))
        for anchor, title, body in sections
        if body
    )
    return element("nav", element("ul", *links), aria_label="Sections")
