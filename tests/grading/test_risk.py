"""The bootstrap: against resampled indices, by its bounds, and by its speed."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from weighin.determinism import generator
from weighin.grading.risk import Labeled, bootstrap, bootstrap_f1, compare, expected_score, risk
from weighin.grading.score import (
    WASTE,
    Cost,
    Metrics,
    confusion,
    confusion_of_indices,
    has_floor,
    macro_f1,
    score,
)


def labels(count: int, classes: int, right: float) -> tuple[list[str], list[str]]:
    random = generator("risk", count)
    truth = random.integers(0, classes, count)
    guess = np.where(random.random(count) < right, truth, random.integers(0, classes, count))
    return [f"c{i}" for i in truth], [f"c{i}" for i in guess]


def test_same_distribution_as_drawing_images() -> None:
    truth, guess = labels(200, 5, 0.6)
    found = confusion(truth, guess)
    random = generator("images")
    true, pred = np.array(truth), np.array(guess)
    drawn = []
    for _ in range(2000):
        pick = random.integers(0, 200, 200)
        drawn.append(confusion(list(true[pick]), list(pred[pick])).f1)
    ours = bootstrap_f1(found, 20_000, seed=1)
    assert ours.mean() == pytest.approx(np.mean(drawn), abs=0.003)
    assert ours.std() == pytest.approx(np.std(drawn), rel=0.06)


def test_a_perfect_model_has_no_risk_and_a_hopeless_one_has_all() -> None:
    perfect = risk(confusion(["a", "b"] * 9, ["a", "b"] * 9), 0.5, 100, seed=0)
    assert (perfect.low, perfect.high, perfect.under_floor) == (1.0, 1.0, 0.0)
    hopeless = risk(confusion(["a", "b"] * 9, ["b", "a"] * 9), 0.5, 100, seed=0)
    assert (hopeless.low, hopeless.high, hopeless.under_floor) == (0.0, 0.0, 1.0)


def test_at_the_floor_the_risk_is_a_half() -> None:
    found = confusion(*labels(2000, 4, 0.7))
    assert risk(found, float(macro_f1(found.counts)), 5000, seed=3).under_floor == pytest.approx(
        0.5, abs=0.03
    )


def test_seeded() -> None:
    found = confusion(*labels(100, 4, 0.7))
    first = bootstrap_f1(found, 500, seed=7)
    assert np.array_equal(first, bootstrap_f1(found, 500, seed=7))
    assert not np.array_equal(first, bootstrap_f1(found, 500, seed=8))


def test_ten_thousand_resamples_are_quick() -> None:
    found = confusion(*labels(8148, 9, 0.7))
    start = time.process_time()
    bootstrap_f1(found, 10_000, seed=0)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(("count", "classes"), [(20, 3), (400, 7), (300, 120), (1, 1)])
def test_the_sums_of_cells_are_the_dense_product(count: int, classes: int) -> None:
    """F1 = 2 TP / (2 TP + FP + FN) of whole tables (K, K), drawn from the same generator."""
    found = confusion(*labels(count, classes, 0.6))
    shape = found.counts.shape
    drawn = np.zeros((50, found.counts.size), np.int64)
    cells = found.counts[found.counts > 0]
    random = generator(4, "bootstrap")
    drawn[:, np.flatnonzero(found.counts)] = random.multinomial(count, cells / count, size=50)
    tables = drawn.reshape(50, *shape)
    f1s, accuracies = bootstrap(found, 50, seed=4)
    assert np.array_equal(f1s, macro_f1(tables))
    assert np.array_equal(accuracies, np.trace(tables, axis1=1, axis2=2) / count)


def test_the_chunks_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    found = confusion(*labels(300, 20, 0.6))
    whole = bootstrap(found, 100, seed=1)
    monkeypatch.setattr("weighin.grading.risk.CHUNK", 700)
    assert all(map(np.array_equal, bootstrap(found, 100, seed=1), whole))


def test_a_thousand_classes_take_no_more_than_their_cells() -> None:
    """Three times the cells of 100 classes, ten times its classes: under eight times its time."""
    seconds = []
    for classes in (100, 1000):
        found = confusion(*labels(3000, classes, 0.6))
        start = time.process_time()
        bootstrap_f1(found, 2000, seed=0)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0]


def test_the_accuracy_is_that_of_the_same_resamples() -> None:
    found = confusion(["a", "b"] * 50, ["a"] * 100)
    f1s, accuracies = bootstrap(found, 4000, seed=2)
    assert accuracies.mean() == pytest.approx(0.5, abs=0.003)
    assert accuracies.std() == pytest.approx(np.sqrt(0.25 / 100), rel=0.05)
    assert f1s == pytest.approx(accuracies / (1 + accuracies))  # (2 tp / (tp + n) + 0) / 2


def test_the_expected_score_far_from_the_steps_is_the_score() -> None:
    found = confusion(
        ["a"] * 100 + ["b"] * 100, (["a"] * 70 + ["b"] * 30) + ["b"] * 70 + ["a"] * 30
    )
    told = expected_score(WASTE, found, Cost(1_386_537, 0), seed=0)
    assert told.expected == pytest.approx(0.1 + 1 - 0.7 / 0.83656, abs=0.01)
    assert told.low < 0.7 < told.high and told.under_floor == 0.0


def test_what_may_be_out_of_the_contest_pays_in_proportion() -> None:
    contest = replace(WASTE, score="micronet")
    found = confusion(["a", "b"] * 100, (["a", "b"] * 51 + ["b", "a"] * 49))
    told = expected_score(contest, found, Cost(13_865_375, 4_214_841), seed=0)
    assert 0.2 < told.under_floor < 0.6
    assert told.expected == pytest.approx(2 + 1000 * told.under_floor)


@pytest.mark.parametrize(
    ("name", "floored"), [("waste", True), ("micronet", True), ("f1", False), ("accuracy", False)]
)
def test_a_contest_without_a_floor_has_no_risk_of_it(name: str, floored: bool) -> None:
    contest = replace(WASTE, score=name)
    hopeless = confusion(["a", "b"] * 9, ["b", "a"] * 9)
    assert has_floor(contest) is floored
    assert expected_score(contest, hopeless, Cost(1, 1), 0).under_floor == float(floored)


@pytest.mark.parametrize("units", [None, [0, 0, 1, 2, 2, 3]])
def test_a_comparison_is_that_of_all_resamples(units: list[int] | None) -> None:
    """Of 6 images, or of the 4 units that they lie in: every resample, counted one by one."""

    def value(metrics: Metrics) -> float:
        return score(WASTE, metrics).value

    truth, costs = np.array([0, 0, 1, 1, 2, 2]), (Cost(10**6, 1), Cost(10**5, 1))
    labels = np.array([[0, 0, 1, 1, 2, 0], [0, 1, 1, 2, 2, 2]])
    unit = np.arange(6) if units is None else np.array(units)
    count, won, total = unit.max() + 1, 0.0, 0.0
    for drawn in itertools.product(range(count), repeat=count):
        at = np.concatenate([np.flatnonzero(unit == one) for one in drawn])
        scores = []
        for found, cost in zip(labels, costs, strict=True):
            table = confusion_of_indices(truth[at], found[at], "abc")
            scores.append(value(Metrics.of(table.f1, table.accuracy, cost)))
        won += (scores[0] < scores[1]) + (scores[0] == scores[1]) / 2
        total += scores[1] - scores[0]
    first, second = map(Labeled, labels, costs)
    found = compare(value, truth, first, second, 0, None if units is None else unit)
    assert found.better == pytest.approx(won / count**count, abs=0.04)
    assert found.difference == pytest.approx(total / count**count, abs=0.03)
    assert found.low < found.difference < found.high
    alone = compare(value, truth, first, second, 0, np.arange(6))
    assert (alone == found) == (units is None)
