"""The learning rate at every step, and the decay of the weight average."""

import math
from dataclasses import replace

import pytest
from small_job import RECIPE

from weighin.training.schedule import average_decay, learning_rate

PLAIN = replace(RECIPE, lr=0.5, warmup=0.2)


def rates(steps: int = 10, **changes: object) -> list[float]:
    recipe = replace(PLAIN, **changes)
    return [learning_rate(recipe, step, steps) for step in range(steps)]


def test_one_cycle_rises_to_the_peak_and_falls_along_a_line() -> None:
    rise = [0.25, 0.5]
    fall = [0.5 * (1 - k / 8 + 1e-3) for k in range(1, 9)]
    assert rates(schedule="one-cycle") == pytest.approx(rise + fall)


def test_cosine_falls_along_half_a_cosine() -> None:
    fall = [0.5 * (0.5 + 0.5 * math.cos(math.pi * k / 10) + 1e-3) for k in range(1, 11)]
    assert rates(schedule="cosine", warmup=0) == pytest.approx(fall)


def test_constant_stays() -> None:
    assert rates(schedule="constant") == [0.25] + [0.5] * 9


def test_a_rate_has_ten_digits_that_every_c_library_agrees_on() -> None:
    for rate in rates(37, schedule="cosine"):
        assert rate == float(f"{rate:.9e}")


def test_the_average_begins_fast_and_reaches_the_recipes_decay() -> None:
    recipe = replace(PLAIN, ema=0.99)
    assert [average_decay(recipe, step) for step in (0, 10, 10_000)] == [0.1, 0.55, 0.99]
