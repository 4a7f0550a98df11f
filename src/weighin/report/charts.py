"""Which figures a report has, and what each says to someone who cannot see it."""

from dataclasses import dataclass

from weighin.grading.f1 import Confusion
from weighin.params import Params
from weighin.report import figures
from weighin.report.confusion_figure import confusion_matrix, most_confused
from weighin.report.evaluation import Evaluation, calibrate
from weighin.report.inputs import Facts
from weighin.report.markup import Markup, figure
from weighin.report.search_figure import tradeoff
from weighin.report.svg import inline


@dataclass(frozen=True)
class Chart:
    """An SVG file's text, what it shows, and what is to be seen in it."""

    svg: str
    caption: str
    alt: str


Charts = dict[str, Chart]


def draw(facts: Facts, found: dict[str, Evaluation], params: Params) -> Charts:
    """Return the figures that the facts allow, by name."""
    splits = facts.data.splits
    charts = {
        "classes": Chart(
            figures.class_counts(splits["train"], splits["validation"]),
            "Images of each class after the checks, by split.",
            f"Bars of {len(facts.classes)} classes; the numbers are in the data report.",
        )
    }
    if facts.search:
        charts["search"] = _search(facts, params)
    for stage, history in facts.histories.items():
        charts[stage] = Chart(
            figures.training_curves(stage, history),
            f"Training loss and validation F1 of the stage {stage}.",
            f"The loss goes from {history[0]['loss']:.3f} to {history[-1]['loss']:.3f} "
            f"in {len(history)} epochs.",
        )
    if any(layer.method for layer in facts.layers):
        charts["layers"] = Chart(
            figures.layer_macs(facts.layers),
            "MACs before and after the factorization, of the layers with the most.",
            f"Bars of {min(len(facts.layers), figures.MOST_LAYERS)} layers; "
            "the table has them all.",
        )
    for split, evaluation in found.items():
        charts[f"confusion-{split}"] = _confusion(split, evaluation.table)
    if facts.validation:
        charts["calibration"] = _calibration(facts)
    return charts


def shown(charts: Charts, name: str) -> Markup:
    """Return a chart as a figure of the page, or nothing where there is none."""
    if name not in charts:
        return Markup()
    chart = charts[name]
    return figure(inline(chart.svg, name, chart.alt), chart.caption, class_="chart")


def _search(facts: Facts, params: Params) -> Chart:
    assert facts.search is not None
    front = facts.search.front()
    return Chart(
        tradeoff(facts.search, params.contest, facts.count.parameters),
        "The trials of the search: MACs against validation F1, as measured in the search.",
        f"{len(facts.search.complete())} trained networks, {len(front)} of them on the front; "
        f"trial {facts.search.chosen} was chosen.",
    )


def _confusion(split: str, table: Confusion) -> Chart:
    fewer = len(most_confused(table)) < len(table.classes)
    part = " of the classes that are in the most mistakes" if fewer else ""
    return Chart(
        confusion_matrix(table, f"confusion-{split}"),
        f"Confusion{part} on the {split} split: a row's images are of one true class.",
        f"{int(table.counts.trace()):,} of {int(table.counts.sum()):,} images lie on the diagonal.",
    )


def _calibration(facts: Facts) -> Chart:
    assert facts.validation is not None
    found = calibrate(facts.validation)
    return Chart(
        figures.reliability(found),
        "How often the network is right against how sure it is; on the dashed line it is as right "
        "as it is sure. The numbers below count images.",
        f"The expected calibration error is {found.error:.4f}.",
    )
