"""The tables behind the figures, as CSV files that `dvc plots` draws and compares."""

from collections.abc import Mapping, Sequence
from typing import Any

from weighin.files import csv_text
from weighin.grading.f1 import Confusion
from weighin.report.evaluation import BINS, calibrate, tabulate
from weighin.report.inputs import Answers, Facts
from weighin.report.trials import Trials

TRIAL = ("number", "state", "macs", "f1", "score")


def tables(facts: Facts) -> dict[str, str]:
    """Return {file name: CSV text} of what the facts hold."""
    splits = facts.data["splits"]
    counts = [(name, splits["train"][name], splits["validation"][name]) for name in splits["train"]]
    found = {"classes.csv": csv_text(("class", "train", "validation"), counts)}
    for stage, study in (("search", facts.search), ("tune", facts.tune)):
        if study:
            found[f"{stage}.csv"] = _trials(study)
    for stage, history in facts.histories.items():
        found[f"{stage}.csv"] = _history(history)
    if facts.layers:
        rows = [(row.path, row.macs_before, row.macs_after) for row in facts.layers]
        found["layers.csv"] = csv_text(("layer", "macs_before", "macs_after"), rows)
    if facts.validation:
        found["confusion-validation.csv"] = _confusion(tabulate(facts.validation))
        found["calibration.csv"] = _calibration(facts.validation)
    if facts.test:
        found["confusion-test.csv"] = _confusion(facts.test)
    return found


def _trials(study: Trials) -> str:
    rows = ([getattr(trial, name) for name in TRIAL] for trial in study.trials)
    return csv_text(TRIAL, rows)


def _history(history: Sequence[Mapping[str, float]]) -> str:
    others = {name for row in history for name in row} - {"epoch"}
    header = ["epoch", *sorted(others)]
    rows: list[list[Any]] = [
        [int(row["epoch"]), *(row.get(name, "") for name in header[1:])] for row in history
    ]
    return csv_text(header, rows)


def _confusion(table: Confusion) -> str:
    rows = [
        (actual, predicted, int(table.counts[i, j]))
        for i, actual in enumerate(table.classes)
        for j, predicted in enumerate(table.classes)
        if table.counts[i, j]
    ]
    return csv_text(("actual", "predicted", "images"), rows)


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
