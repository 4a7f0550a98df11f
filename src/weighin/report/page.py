"""report.html: one file that needs nothing else, from the verdict down to how to rebuild it."""

from pathlib import Path

from weighin.params import Params
from weighin.report import sections
from weighin.report.charts import Charts
from weighin.report.data_section import data
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import Facts
from weighin.report.markup import Markup, element, joined
from weighin.report.origin import origin, rebuild
from weighin.report.provenance import Json
from weighin.report.robustness import Robustness
from weighin.report.robustness_section import worse_photographs
from weighin.report.theme import CSS
from weighin.report.verdict import verdict

# nothing is fetched and no script runs, even if a name slipped through
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(
    facts: Facts,
    found: dict[str, Evaluation],
    charts: Charts,
    worse: Robustness | None,
    params: Params,
    images: Path,
    definition: Json,
) -> str:
    """Return the page; `images` is the folder of the mistakes, `definition` that of the build."""
    parts = [
        ("verdict", "Verdict", verdict(facts, found, params)),
        ("data", "Data", data(facts, charts, params.report.sheets)),
        ("search", "Search", sections.search(facts, charts)),
        ("training", "Training", sections.training(facts, charts)),
        ("compression", "Compression", sections.compression(facts, charts)),
        ("mistakes", "Mistakes", sections.mistakes(facts, found, charts, params, images)),
        ("robustness", "Worse photographs", worse_photographs(worse, params.report.mistakes > 0)),
        ("origin", "Made from", origin(definition)),
        ("rebuild", "Rebuild and grade", rebuild(facts)),
    ]
    title = f"Weigh-in: {len(facts.classes)} classes, {facts.count.macs:,} MACs"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", Markup(CSS)),
    )
    bodies = joined(body for _, _, body in parts)
    header = element("header", element("h1", title), _contents(parts))
    body = element("body", header, element("main", bodies))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _contents(sections: list[tuple[str, str, Markup]]) -> Markup:
    """Return links to the sections that are there."""
    links = (
        element("li", element("a", title, href=f"#{anchor}"))
        for anchor, title, body in sections
        if body
    )
    return element("nav", element("ul", *links), aria_label="Sections")
