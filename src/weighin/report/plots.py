"""The tables behind the figures, as CSV files that `dvc plots` draws and compares.

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

import numpy as np
import pandas as pd

from weighin.grading.f1 import ConfusionMatrix
from weighin.report.evaluation import BINS, DIGITS, Calibration, Results


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
