"""The page's sections on the search, the training, the compression and the mistakes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weighin.params import Params
from weighin.report.charts import Charts, shown
from weighin.report.evaluation import Evaluation, worst_mistakes
from weighin.report.gallery import gallery
from weighin.report.inputs import Facts
from weighin.report.markup import Markup, element, folded, paragraph, section, table
from weighin.report.trials import Trial, Trials
from weighin.report.words import compressed, measured, share, split_name, study

FRONT = 12  # rows of a table that is shown unasked

Found = dict[str, Evaluation]


def search(facts: Facts, charts: Charts) -> Markup:
    """Return what was tried, and why the chosen one was."""
    if not facts.search and not facts.tune:
        return Markup()
    parts: list[str] = []
    if facts.search:
        parts += [paragraph(study(facts.search)), shown(charts, "search"), _front(facts.search)]
    if facts.tune:
        parts += [element("h3", "Recipe"), paragraph(study(facts.tune))]
    if facts.recipe:
        rows = [[name, str(value)] for name, value in _flat(facts.recipe)]
        parts.append(folded("The recipe", table("Recipe", ["parameter", "value"], rows)))
    return section("search", "Search", *parts)


def _front(found: Trials) -> Markup:
    trials = found.contenders()
    columns: dict[str, list[str]] = {
        "trial": [_number(trial, found.chosen) for trial in trials],
        "MACs": ["–" if trial.macs is None else f"{trial.macs:,}" for trial in trials],
        "F1": [measured(trial.f1) for trial in trials],
        "score": [measured(trial.score) for trial in trials],
        "expected score": [measured(trial.expected) for trial in trials],
        "risk of the floor": [_risk(trial.under_floor) for trial in trials],
    }
    known = {name: texts for name, texts in columns.items() if {*texts} != {"–"}}
    rows = list(zip(*known.values(), strict=True))
    front = table("The front: no trial is better in both MACs and F1", list(known), rows)
    return front if len(rows) <= FRONT else folded(f"The front of {len(rows)} trials", front)


def _number(trial: Trial, chosen: int) -> str:
    return f"{trial.number} (chosen)" if trial.number == chosen else str(trial.number)


def _risk(under_floor: float | None) -> str:
    return "–" if under_floor is None else share(under_floor)


def training(facts: Facts, charts: Charts) -> Markup:
    """Return the curves of each training, and the network's rows."""
    parts: list[str] = [shown(charts, stage) for stage in facts.histories]
    if facts.network:
        rows = element("pre", element("code", facts.network), tabindex="0")
        parts.append(folded("The network's rows", rows))
    return section("training", "Training", *parts) if parts else Markup()


def compression(facts: Facts, charts: Charts) -> Markup:
    """Return what the factorization saved, layer by layer, and whether it was taken."""
    parts: list[str] = []
    if facts.layers:
        parts += [paragraph(compressed(facts.layers)), shown(charts, "layers"), _layers(facts)]
    if facts.choice:
        parts.append(paragraph(facts.choice))
    return section("compression", "Compression", *parts) if parts else Markup()


def _layers(facts: Facts) -> Markup:
    rows = [
        [
            layer.path,
            f"{layer.macs_before:,}",
            f"{layer.macs_after:,}",
            layer.method or "–",
            layer.ranks,
            measured(layer.error, 3),
            measured(layer.sensitivity),
            " × ".join(map(str, layer.shape)),
        ]
        for layer in facts.layers
    ]
    header = ["layer", "MACs before", "after", "method", "ranks", "error", "sensitivity", "shape"]
    return folded("Every layer", table("Layers; error is relative to the weights", header, rows))


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
            measured(row.f1, 3),
            measured(row.precision, 3),
            measured(row.recall, 3),
            f"{row.images:,}",
            f"{row.predicted:,}",
        ]
        for row in found.table.rows()
    ]
    header = ["class", "F1", "precision", "recall", "images", "labelled so"]
    return table(f"Each class on {split_name(split)}", header, rows)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name in sorted(values):
        value = values[name]
        inner = isinstance(value, Mapping)
        rows += _flat(value, f"{prefix}{name}.") if inner else [(prefix + name, value)]
    return rows
