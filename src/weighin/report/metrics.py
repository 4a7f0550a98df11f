"""metrics.json: the numbers that `dvc metrics` shows and compares.

accuracy, f1, score             on the validation split
f1_low, f1_high                 95 % bootstrap interval; score_low, score_high likewise
f1_under_floor                  share of resamples under the contest's floor
calibration_error               expected, over ten bins of confidence
robustness                      F1 on the validation images degraded: robustness.py says how
test_...                        the same on data/test, where its truth is known; F1 by class is a
                                table of plots/, to keep `dvc exp show` on a screen
macs, parameters                counted from model.onnx by the contest's rule
"""

from typing import Any

from weighin.params import Params
from weighin.report.evaluation import Evaluation, calibrate, evaluate, tabulate
from weighin.report.inputs import Facts
from weighin.report.robustness import Robustness

DIGITS = 6


def evaluations(facts: Facts, params: Params) -> dict[str, Evaluation]:
    """Return {"validation": ..., "test": ...} of the splits that were answered and whose truth
    is known.
    """
    tables = {
        "validation": tabulate(facts.validation) if facts.validation else None,
        "test": facts.test,
    }
    count = facts.count
    return {
        split: evaluate(
            table, count.macs, count.parameters, params.contest, params.report.bootstrap
        )
        for split, table in tables.items()
        if table is not None
    }


def metrics(
    facts: Facts, found: dict[str, Evaluation], worse: Robustness | None = None
) -> dict[str, Any]:
    """Return what metrics.json holds."""
    values: dict[str, Any] = {"macs": facts.count.macs, "parameters": facts.count.parameters}
    for split, evaluation in found.items():
        prefix = "" if split == "validation" else f"{split}_"
        values |= {prefix + name: value for name, value in _of(evaluation).items()}
    if facts.validation:
        values["calibration_error"] = round(calibrate(facts.validation).error, DIGITS)
    if worse:
        values["robustness"] = {kind: round(f1, DIGITS) for kind, f1 in worse.f1.items()}
    return values


def _of(found: Evaluation) -> dict[str, float]:
    exact = {
        "f1": found.table.f1,
        "f1_low": found.risk.low,
        "f1_high": found.risk.high,
        "f1_under_floor": found.risk.under_floor,
        "accuracy": found.table.accuracy,
        "score": found.score.value,
        "score_low": found.score_low,
        "score_high": found.score_high,
    }
    return {name: round(value, DIGITS) for name, value in exact.items()}
