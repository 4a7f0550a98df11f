"""The report stage: from what the other stages left to the files that are handed in."""

from pathlib import Path

from weighin.files import canonical_json, write_bytes
from weighin.params import Params
from weighin.report.card import card
from weighin.report.charts import draw
from weighin.report.inputs import Inputs, read
from weighin.report.metrics import evaluations, metrics
from weighin.report.page import page
from weighin.report.plots import tables
from weighin.report.provenance import build_definition, provenance
from weighin.report.robustness import robustness

PLOTS = "plots"


def write_report(inputs: Inputs, params: Params, out: Path) -> None:
    """Write metrics.json, report.html, MODEL_CARD.md, provenance.json and plots/ into `out`.

    Everything is computed before the first byte is written. The bytes follow from the inputs'
    contents and the parameters alone, in a pinned process (`weighin.determinism`).

    Raises:
        DataError: an input is missing or is not what its stage writes.
        ModelError, HiddenWorkError: the model cannot be graded.
        OutputError: `out` cannot be written.
    """
    facts = read(inputs)
    found = evaluations(facts, params)
    worse = robustness(facts.model, inputs.prepare) if facts.validation else None
    charts = draw(facts, found, params)
    definition = build_definition(inputs, params)
    made = {
        "metrics.json": canonical_json(metrics(facts, found, worse)),
        "report.html": page(facts, found, charts, worse, params, inputs.images, definition),
        "MODEL_CARD.md": card(facts, found, worse, params),
        **{f"{PLOTS}/{name}.svg": chart.svg for name, chart in charts.items()},
        **{f"{PLOTS}/{name}": text for name, text in tables(facts).items()},
    }
    files = {name: text.encode() for name, text in made.items()}
    files["provenance.json"] = canonical_json(provenance(inputs, definition, files)).encode()
    for name, data in files.items():
        write_bytes(out / name, data)
    for old in set((out / PLOTS).iterdir()) - {out / name for name in files}:
        old.unlink()  # a figure of a stage that is now off
