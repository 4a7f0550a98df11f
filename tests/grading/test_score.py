"""The contests' formulas against published rows and worked examples."""

import dataclasses

import pytest

from weighin.grading.score import FORMULAS, OUT_OF_CONTEST, WASTE, Metrics, score
from weighin.params import Contest
from weighin.validation import parameters

# f1, MACs, published score
LEADERBOARD = [
    (0.5176, 1_862_490, 0.5156),
    (0.4892, 1_862_490, 1.1343),
    (0.6207, 1_083_210, 0.3362),
    (0.6386, 1_688_940, 0.3584),
]


def rules(name: str, **changes: float) -> Contest:
    return dataclasses.replace(WASTE, score=name, **changes)


@pytest.mark.parametrize(("f1", "macs", "published"), LEADERBOARD)
def test_waste_meets_the_published_rows(f1: float, macs: int, published: float) -> None:
    result = score(WASTE, Metrics(f1, 0, macs, 0))
    assert round(result.value, 4) == published
    assert sum(result.parts.values()) == result.value


def test_waste_steps_at_the_floor_and_bends_at_the_reference() -> None:
    def quality(f1: float) -> float:
        return score(WASTE, Metrics(f1, 0, 0, 0)).value

    assert quality(0.4999) == 1.0
    assert quality(0.5) == 1 - 0.5 / 0.83656
    assert quality(0.83656) == 0.0
    assert quality(1.0) == 0.5 * (1 - 1 / 0.83656)


def test_f1_ignores_macs() -> None:
    assert score(rules("f1"), Metrics(0.75, 0, 10**9, 0)).parts == {"f1": 0.25}


def test_accuracy_is_the_error_rate_within_the_budget() -> None:
    contest = rules("accuracy", max_macs=1000)
    assert score(contest, Metrics(0, 0.75, 1000, 0)).value == 0.25
    assert score(contest, Metrics(0, 0.75, 1001, 0)).value == 0.25 + OUT_OF_CONTEST


def test_micronet_is_two_ratios_once_good_enough() -> None:
    contest = rules("micronet", reference_macs=1000, reference_params=500, floor_f1=0.6)
    assert score(contest, Metrics(0.6, 0, 250, 50)).parts == {
        "parameters": 0.1,
        "operations": 0.25,
        "under_floor": 0.0,
    }
    assert score(contest, Metrics(0.59, 0, 250, 50)).value == 0.35 + OUT_OF_CONTEST


def test_every_contest_that_can_be_named_has_a_formula() -> None:
    assert set(parameters(Contest)["score"]["enum"]) == set(FORMULAS)
