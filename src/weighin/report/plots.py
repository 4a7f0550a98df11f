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

import math
from collections.abc import Mapping, Sequence

import numpy as np

from weighin.files import csv_text
from weighin.grading.f1 import Confusion
from weighin.report.evaluation import BINS, calibrate, tabulate
from weighin.report.inputs import Answers, Facts
from weighin.report.trials import Trials

History = Sequence[Mapping[str, float]]
TRIAL = ("number", "state", "macs", "f1", "score")


def tables(facts: Facts) -> dict[str, str]:
    """Return {file name: CSV text} of what the facts hold."""
    splits = facts.data.splits
    counts = [(name, splits["train"][name], splits["validation"][name]) for name in splits["train"]]
    found = {"classes.csv": csv_text(("class", "train", "validation"), counts)}
    for stage, study in (("search", facts.search), ("tune", facts.tune)):
        if study:
            found[f"{stage}.csv"] = _trials(study)
    for stage, history in facts.histories.items():
        found |= _history(stage, history)
    if facts.layers:
        rows = [(row.path, row.macs_before, row.macs_after) for row in facts.layers]
        found["layers.csv"] = csv_text(("layer", "macs_before", "macs_after"), rows)
    if facts.validation:
        found |= _answers("validation", tabulate(facts.validation))
        found["calibration.csv"] = _calibration(facts.validation)
    if facts.test:
        found |= _answers("test", facts.test)
    return found


def _trials(study: Trials) -> str:
    rows = ([getattr(trial, name) for name in TRIAL] for trial in study.trials)
    return csv_text(TRIAL, rows)


def _history(stage: str, history: History) -> dict[str, str]:
    """Return the losses, and apart from them the measurements: a gap would break DVC's lines."""
    measured = [row for row in history if "f1" in row]
    found = {f"{stage}.csv": _epochs(history, {"loss", "lr"})}
    if measured:
        found[f"{stage}-validation.csv"] = _epochs(measured, {"f1", "accuracy"})
    return found


def _epochs(history: History, wanted: set[str]) -> str:
    columns = sorted(wanted & set[str]().union(*history))
    rows = [(int(row["epoch"]), *(row.get(name, "") for name in columns)) for row in history]
    return csv_text(("epoch", *columns), rows)


def _answers(split: str, table: Confusion) -> dict[str, str]:
    return {f"f1-{split}.csv": _by_class(table), f"confusion-{split}.csv": _confusion(table)}


def _by_class(table: Confusion) -> str:
    """Return the classes that occur."""
    rows = [
        (row.name, row.images, *(round(x, 6) for x in (row.precision, row.recall, row.f1)))
        for row in table.rows()
        if not math.isnan(row.f1)
    ]
    return csv_text(("class", "images", "precision", "recall", "f1"), rows)


def _confusion(table: Confusion) -> str:
    """Return a row an image: DVC's confusion template counts rows."""
    cells = np.repeat(np.arange(table.counts.size), table.counts.ravel())
    true, predicted = np.divmod(cells, len(table.classes))
    names = table.classes
    rows = [(names[i], names[j]) for i, j in zip(true, predicted, strict=True)]
    return csv_text(("actual", "predicted"), rows)


def _calibration(answers: Answers) -> str:
    found = calibrate(answers)
    rows = [
        (
            f"{place / BINS:g}",
            int(found.images[place]),
            round(float(found.confidence[place]), 6),
            round(float(found.accuracy[place]), 6),
        )
        for place in range(BINS)
        if found.images[place]
    ]
    return csv_text(("from", "images", "confidence", "accuracy"), rows)
