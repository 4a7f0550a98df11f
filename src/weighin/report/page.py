"""report.html: one file that needs nothing else, from the verdict down to how to rebuild it."""

from pathlib import Path

from weighin.params import Params
from weighin.report import sections
from weighin.report.charts import Charts
from weighin.report.data_section import data
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import Facts
from weighin.report.markup import Markup, element, joined, paragraph, section
from weighin.report.theme import CSS

# nothing is fetched and no script runs, even if a name slipped through
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
REBUILD = "dvc repro"
GRADE = "python -m weighin.grading submission/model.onnx data/test graded --contest params.yaml"
SCORED = f"{GRADE} --truth data/test_truth.csv"


def page(
    facts: Facts, found: dict[str, Evaluation], charts: Charts, params: Params, images: Path
) -> str:
    """Return the page; `images` is the folder that the thumbnails of mistakes are read from."""
    parts = [
        ("verdict", "Verdict", sections.verdict(facts, found, params)),
        ("data", "Data", data(facts, charts)),
        ("search", "Search", sections.search(facts, charts)),
        ("training", "Training", sections.training(facts, charts)),
        ("compression", "Compression", sections.compression(facts, charts)),
        ("mistakes", "Mistakes", sections.mistakes(facts, found, charts, params, images)),
        ("rebuild", "Rebuild and grade", _rebuild(facts)),
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
    header = element("header", element("h1", title), sections.contents(parts))
    body = element("body", header, element("main", bodies))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _rebuild(facts: Facts) -> Markup:
    return section(
        "rebuild",
        "Rebuild and grade",
        paragraph(
            "The same data, parameters and code give every file of this submission again, "
            "byte for byte; provenance.json holds the hashes to compare with."
        ),
        _commands(REBUILD),
        paragraph(
            "The grader trusts nothing that is said here: it counts the MACs from the graph of "
            "model.onnx, labels the folder and, given the truth, scores it."
        ),
        _commands(GRADE, SCORED),
        paragraph(
            f"submission.csv labels {facts.labelled:,} files. SHA-256 of model.onnx: ",
            element("code", facts.model.sha256),
        ),
    )


def _commands(*lines: str) -> Markup:
    return element("pre", element("code", "\n".join(lines)), tabindex="0")
