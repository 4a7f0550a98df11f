"""Who goes on: by the score, or by what is added to the front."""

import time
from dataclasses import replace

import numpy as np
import pytest

from weighin.determinism import generator
from weighin.grading.score import WASTE, Metrics, score
from weighin.search.study import better_half, by_gain, hypervolume, proxy_score


def metrics(f1: float, macs: int) -> Metrics:
    return Metrics(f1, f1, macs, 0)


def test_an_odd_one_goes_on() -> None:
    assert [better_half(count) for count in (1, 2, 3, 8)] == [1, 1, 2, 4]


def test_promise_is_the_score_above_the_floor_and_a_slope_below() -> None:
    def both(f1: float) -> tuple[float, float]:
        found = metrics(f1, 1_386_537)
        return proxy_score(WASTE, found), score(WASTE, found).value

    assert both(0.6)[0] == both(0.6)[1]
    assert both(0.3) == pytest.approx((0.1 + 1 - 0.3 / 0.83656 + 0.2 / 0.83656, 1.1), abs=1e-6)


def test_the_hypervolume_is_the_area_under_the_best_f1() -> None:
    front = [metrics(0.5, 40), metrics(0.25, 10)]
    assert hypervolume(front, 100) == 0.25 * 30 + 0.5 * 60
    assert hypervolume([*front, metrics(0.5, 50), metrics(0.2, 10)], 100) == 37.5  # dominated
    assert hypervolume([], 100) == 0


def test_what_adds_most_to_the_front_goes_first_then_the_front_behind_it() -> None:
    named = {
        "best": metrics(0.75, 20),  # 60 alone
        "beside": metrics(0.875, 60),  # adds 0.125 * 40
        "small": metrics(0.5, 5),  # adds 0.5 * 15
        "behind": metrics(0.75, 25),  # adds nothing, 56.25 alone
        "behind, small": metrics(0.375, 5),  # adds nothing, then 0.375 * 20
        "nothing": metrics(0.0, 5),
    }
    order = by_gain(list(reversed(named)), named.__getitem__, 100)
    assert order == ["best", "small", "beside", "behind", "behind, small", "nothing"]


def test_equals_keep_their_order() -> None:
    named = {number: metrics(0.5, 10) for number in (3, 1, 2)}
    assert by_gain([3, 1, 2], named.__getitem__, 100) == [3, 1, 2]


def test_a_floor_does_not_change_what_is_promised_above_it() -> None:
    found = metrics(0.6, 10**6)
    assert proxy_score(replace(WASTE, floor_f1=0.1), found) == proxy_score(WASTE, found)


@pytest.mark.parametrize("name", ["f1", "accuracy"])
def test_a_contest_without_a_floor_has_none_here(name: str) -> None:
    contest = replace(WASTE, score=name)
    assert proxy_score(contest, metrics(0.3, 10**6)) == score(contest, metrics(0.3, 10**6)).value


def test_the_order_is_that_of_the_greatest_gain_one_by_one() -> None:
    """Against the definition, in whole numbers, on points with many equals."""
    random = generator("halving")
    for case in range(200):
        f1s = random.integers(0, 1000 if case % 2 else 5, 9).tolist()
        sizes = random.integers(1, 10**6 if case % 2 else 6, 9).tolist()
        gate = 10**6 if case % 2 else 5
        found = [metrics(f1 / 1000, macs) for f1, macs in zip(f1s, sizes, strict=True)]
        whole = [metrics(f1, min(macs, gate)) for f1, macs in zip(f1s, sizes, strict=True)]
        left, front, order = list(range(9)), [], []
        while left:
            best = max(left, key=lambda place: hypervolume([*front, whole[place]], gate))
            if front and hypervolume([*front, whole[best]], gate) == hypervolume(front, gate):
                front = []
                continue
            front.append(whole[best])
            order.append(best)
            left.remove(best)
        assert by_gain(range(9), found.__getitem__, gate) == order


@pytest.mark.parametrize("shape", ["one front", "many fronts"])
def test_ten_thousand_are_ordered_in_seconds(shape: str) -> None:
    random = generator("halving", shape)
    f1s, sizes = random.random(10_000), random.integers(1, 10**7, 10_000)
    if shape == "one front":
        f1s, sizes = np.sort(f1s), np.sort(sizes)
    found = [metrics(f1, macs) for f1, macs in zip(f1s.tolist(), sizes.tolist(), strict=True)]
    start = time.process_time()
    by_gain(range(10_000), found.__getitem__, 10**7)
    assert time.process_time() - start < 10  # cubic would be a year
