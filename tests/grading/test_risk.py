"""The bootstrap: against resampled indices, by its bounds, and by its speed."""

import time

import numpy as np
import pytest

from weighin.determinism import generator
from weighin.grading.f1 import confusion, macro_f1
from weighin.grading.risk import bootstrap_f1, risk


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
