"""The report stage: from what the other stages left to the files that are submitted."""

from pathlib import Path

from weighin.files import canonical_json, write_bytes
from weighin.params import Params
from weighin.report.evaluation import Results, calibrate, evaluate_splits, metrics
from weighin.report.figures import draw
from weighin.report.inputs import Inputs, read
from weighin.report.page import card, page
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
    data = read(inputs)
    results = Results(
        data,
        params,
        evaluate_splits(data, params),
        calibrate(data.validation) if data.validation else None,
        robustness(data.model, inputs.prepare) if data.validation else None,
    )
    charts = draw(results)
    definition = build_definition(inputs, params)
    made = {
        "metrics.json": canonical_json(metrics(results)),
        "report.html": page(results, charts, inputs.images, definition),
        "MODEL_CARD.md": card(results),
        **{f"{PLOTS}/{name}.svg": chart.svg for name, chart in charts.items()},
        **{f"{PLOTS}/{name}": text for name, text in tables(results).items()},
    }
    files = {name: text.encode() for name, text in made.items()}
    files["provenance.json"] = canonical_json(provenance(inputs, definition, files)).encode()
    for name, text in files.items():
        write_bytes(out / name, text)
    for old in set((out / PLOTS).iterdir()) - {out / name for name in files}:
        old.unlink()  # a figure of a stage that is now off
