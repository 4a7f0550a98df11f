"""The report stage: from what the other stages left to the files that are submitted.

Beside the pages these are the tables behind the figures, CSV files of plots/ that `dvc plots` draws
and compares:

classes             class, train, validation                bar_horizontal
search, tune        number, state, macs, f1, score          scatter, macs against f1
train, finetune     epoch, loss, lr                         linear over epoch
<one>-validation    epoch, accuracy, f1; epochs measured    linear over epoch
layers              layer, macs_before, macs_after          bar_horizontal
f1-<split>          class, images, precision, recall, f1    bar_horizontal
confusion-<split>   actual, predicted; one row an image     confusion
calibration         from, images, confidence, accuracy      linear, confidence against accuracy
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from weighin.files import canonical_json, write_bytes
from weighin.grading.score import ConfusionMatrix
from weighin.params import Params
from weighin.report.evaluation import (
    BINS,
    DIGITS,
    Calibration,
    Results,
    calibrate,
    evaluate_splits,
    metrics,
    robustness,
)
from weighin.report.figures import draw
from weighin.report.inputs import Inputs, read
from weighin.report.page import card, page
from weighin.report.provenance import build_definition, provenance

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


def tables(results: Results) -> dict[str, str]:
    """Return {file name: CSV text} of what there is."""
    data, splits = results.data, results.data.dataset.splits
    frames = {
        "classes": pd.DataFrame(
            {
                "class": [*splits.train],
                "train": [*splits.train.values()],
                "validation": [splits.validation[name] for name in splits.train],
            }
        )
    }
    for stage, study in (("search", data.search), ("tune", data.tune)):
        if study:
            frames[stage] = _frame(study.trials)[["number", "state", "macs", "f1", "score"]]
    for stage, history in data.histories.items():
        # what was measured lies apart from the losses: a gap would break DVC's lines
        epochs = _frame(history).dropna(axis="columns", how="all")
        frames[stage] = epochs.drop(columns=["f1", "accuracy"], errors="ignore")
        if "f1" in epochs:
            frames[f"{stage}-validation"] = epochs.dropna(subset="f1")[
                ["epoch", *sorted({"f1", "accuracy"} & {*epochs})]
            ]
    if data.layers:
        layers = _frame(data.layers).rename(columns={"path": "layer"})
        frames["layers"] = layers[["layer", "macs_before", "macs_after"]]
    for split, found in results.evaluations.items():
        frames[f"f1-{split}"] = _by_class(found.table)
        frames[f"confusion-{split}"] = _confusion(found.table)
    if results.calibration:
        frames["calibration"] = _calibration(results.calibration)
    return {
        f"{name}.csv": frame.to_csv(index=False, lineterminator="\n")
        for name, frame in frames.items()
    }


def _frame(rows: Iterable[object]) -> pd.DataFrame:
    """Return records as a table; numbers stay as they are beside those that are missing."""
    return pd.DataFrame([asdict(row) for row in rows], dtype=object)  # type: ignore[call-overload]


def _by_class(table: ConfusionMatrix) -> pd.DataFrame:
    """Return the classes that occur."""
    rows = _frame(table.rows()).rename(columns={"name": "class"})
    return _rounded(rows[["class", "images", "precision", "recall", "f1"]].dropna())


def _confusion(table: ConfusionMatrix) -> pd.DataFrame:
    """Return a row an image: DVC's confusion template counts rows."""
    cells = np.repeat(np.arange(table.counts.size), table.counts.ravel())
    true, predicted = np.divmod(cells, len(table.classes))
    names = np.array(table.classes, dtype=object)
    return pd.DataFrame({"actual": names[true], "predicted": names[predicted]})


def _calibration(found: Calibration) -> pd.DataFrame:
    bins = {
        "from": [f"{place / BINS:g}" for place in range(BINS)],
        "images": found.images,
        "confidence": found.confidence,
        "accuracy": found.accuracy,
    }
    return _rounded(pd.DataFrame(bins)[found.images > 0])


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Round as Python does, to the nearest number; pandas may be one in the last place off."""
    return frame.map(lambda value: round(value, DIGITS) if isinstance(value, float) else value)
