"""The equations behind the figures: intervals, confidence, calibration, the order of mistakes."""

import math

import numpy as np
import pytest
from made_project import CLASSES, LABEL, TRUTH, make_logits, make_params

from weighin.determinism import generator
from weighin.grading.score import (
    ConfusionMatrix,
    Cost,
    Metrics,
    confusion_of_indices,
    macro_f1,
    score,
)
from weighin.params import Contest
from weighin.report.evaluation import (
    calibrate,
    confidences,
    confused_pairs,
    evaluate,
    tabulate,
    weakest_first,
    worst_mistakes,
)
from weighin.report.inputs import ValidationPredictions

CONTEST = make_params().contest
NAMES = tuple(f"{place}.png" for place in range(len(TRUTH)))
PREDICTIONS = ValidationPredictions(CLASSES, NAMES, np.array(TRUTH), make_logits())


def contest(formula: str) -> Contest:
    return Contest(formula, 10**6, 10**6, 10**6, 0.9, 0.5)


def larger() -> ConfusionMatrix:
    """400 images of 3 classes, 70 % of them right."""
    random = generator(7, "a table")
    truth = random.integers(3, size=400)
    wrong = random.integers(3, size=400)
    return confusion_of_indices(truth, np.where(random.random(400) < 0.55, truth, wrong), CLASSES)


def test_the_table_is_of_the_likeliest_classes() -> None:
    table = tabulate(PREDICTIONS)
    assert table.counts.tolist() == [[3, 1, 0], [0, 2, 1], [0, 0, 3]]
    assert table.accuracy == 0.8


def test_the_score_interval_is_the_bootstrap_over_images() -> None:
    """The multinomial shortcut against resampled images, one by one."""
    table = larger()
    found = evaluate(table, Cost(500_000, 1), contest("waste"), 20_000)
    rows = np.repeat(np.arange(9), table.counts.ravel())
    random = generator(8, "by image")
    scores = []
    for _ in range(4000):
        counts = np.bincount(random.choice(rows, len(rows)), minlength=9).reshape(3, 3)
        f1 = float(macro_f1(counts))
        scores.append(score(contest("waste"), Metrics(f1, 0, 500_000, 1)).value)
    low, high = np.quantile(scores, (0.025, 0.975))
    assert found.score_low == pytest.approx(low, abs=0.006)
    assert found.score_high == pytest.approx(high, abs=0.006)
    # negative control: an interval of another width would not pass for it
    assert high - low > 0.08


def test_the_interval_of_an_accuracy_is_binomial() -> None:
    """Ten images, eight right: the exact quantiles of Binomial(10, 0.8) are 5 and 10 hits."""
    chance = [math.comb(10, k) * 0.8**k * 0.2 ** (10 - k) for k in range(11)]
    low = next(k for k in range(11) if sum(chance[: k + 1]) >= 0.025)
    high = next(k for k in range(11) if sum(chance[: k + 1]) >= 0.975)
    found = evaluate(tabulate(PREDICTIONS), Cost(1000, 1), contest("accuracy"), 10_000)
    assert (low, high) == (5, 10)
    assert (found.score_low, found.score_high) == (1 - high / 10, 1 - low / 10)


def test_the_risk_is_the_share_of_resamples_under_the_floor() -> None:
    table = ConfusionMatrix(("a", "b"), np.array([[50, 0], [0, 50]]))
    found = evaluate(table, Cost(1000, 1), CONTEST, 1000)
    assert (found.risk.low, found.risk.high, found.risk.under_floor) == (1.0, 1.0, 0.0)
    assert found.score_low == found.score.value == found.score_high
    wrong = ConfusionMatrix(("a", "b"), np.array([[0, 50], [50, 0]]))
    found = evaluate(wrong, Cost(1000, 1), CONTEST, 1000)
    assert (found.table.f1, found.risk.under_floor) == (0.0, 1.0)


def test_the_score_interval_holds_the_jump_at_the_floor() -> None:
    """An F1 of 0.51, over a third of whose resamples are under 0.5."""
    counts = np.array([[51, 49], [49, 51]])
    found = evaluate(ConfusionMatrix(("a", "b"), counts), Cost(0, 1), CONTEST, 10_000)
    assert found.score.value == pytest.approx(1 - 0.51 / 0.83656)
    assert 0.3 < found.risk.under_floor < 0.5
    assert found.score_high == 1.0
    assert found.score_low < found.score.value


def test_confidence_is_the_softmax_of_the_likeliest() -> None:
    assert confidences(PREDICTIONS.logits) == pytest.approx([0.85] * 6 + [0.95] + [0.85] * 3)
    huge = np.array([[1e4, 0, 0], [-1e4, -1e4, -1e4]], np.float32)
    assert confidences(huge).tolist() == [1.0, pytest.approx(1 / 3)]


def test_calibration_weighs_each_bin_by_its_images() -> None:
    found = calibrate(PREDICTIONS)
    assert found.images.tolist() == [0] * 8 + [9, 1]
    assert found.confidence[8:].tolist() == pytest.approx([0.85, 0.95])
    assert found.accuracy[8:].tolist() == pytest.approx([8 / 9, 0])
    assert np.isnan(found.accuracy[:8]).all()
    assert found.error == pytest.approx(0.9 * (8 / 9 - 0.85) + 0.1 * 0.95)


def test_full_certainty_falls_into_the_last_bin() -> None:
    logits = np.array([[1e4, 0]], np.float32)
    found = calibrate(ValidationPredictions(("a", "b"), ("x",), np.array([0]), logits))
    assert (found.images.tolist(), found.error) == ([0] * 9 + [1], 0.0)


def test_the_surest_mistakes_come_first_and_ties_by_name() -> None:
    found = worst_mistakes(PREDICTIONS, 5)
    assert [(row.name, row.true, row.predicted) for row in found] == [
        ("6.png", CLASSES[1], CLASSES[2]),
        ("3.png", CLASSES[0], CLASSES[1]),
    ]
    assert found[0].confidence == pytest.approx(0.95)
    assert worst_mistakes(PREDICTIONS, 1) == found[:1]
    tied = ValidationPredictions(
        ("a", "b"), ("z", "y"), np.array([0, 0]), np.array([[0, 1], [0, 1]], np.float32)
    )
    assert [row.name for row in worst_mistakes(tied, 2)] == ["y", "z"]


def test_the_weakest_classes_and_the_most_confused_pairs() -> None:
    counts = np.array([[5, 3, 0, 0], [0, 9, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    table = ConfusionMatrix(("a", "b", "c", "none"), counts)
    assert [row.name for row in weakest_first(table)] == ["c", "a", "b"]  # 2/3, 10/14, 18/21
    assert confused_pairs(table, 5) == [("a", "b", 3, 3 / 8), ("c", "a", 1, 1 / 2)]
    assert confused_pairs(table, 1) == [("a", "b", 3, 3 / 8)]
    assert confused_pairs(ConfusionMatrix(("a", "b"), np.diag([1, 2])), 5) == []


def test_the_made_answers_are_what_the_tests_say_they_are() -> None:
    assert PREDICTIONS.logits.argmax(axis=1).tolist() == list(LABEL)
