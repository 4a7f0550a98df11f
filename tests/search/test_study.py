"""Generations, halving and the gate, with a measure made of the drawn value instead of training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from tests.search.measures import measured

from weighin.grading.score import WASTE, Cost
from weighin.network.spec import NetworkSpec, Row
from weighin.params import Params
from weighin.search.study import MAX_REJECTED, Plan, Proposal, Study, Trial

PLAN = Plan(
    "search",
    0,
    trials=8,
    generation=4,
    rungs=(1, 2, 4),
    shards=1,
    sampler="tpe",
    objective="score",
)


class Bench:
    """Proposes networks of c channels that cost 1,000 c MACs; more channels measure better."""

    def __init__(self, params: Params, highest: int = 90) -> None:
        self.recipe, self.highest = params.recipe, highest
        self.trained: list[tuple[list[int], int]] = []

    def propose(self, trial: optuna.trial.Trial) -> Proposal:
        c = trial.suggest_int("c", 1, self.highest)
        spec = NetworkSpec((8, 8), 1.0, (Row(1, "Conv", (c,)),))
        return Proposal({"c": c}, spec, self.recipe, Cost(1000 * c, c))

    def train(self, trials: Sequence[Trial], until: int) -> None:
        self.trained.append(([trial.number for trial in trials], until))
        for trial in trials:
            trial.measured = measured(until, *[min(99, 10 + trial.proposal.params["c"])] * 2)


Made = Callable[..., tuple[Bench, list[Trial]]]


@pytest.fixture
def run(params: Params) -> Made:
    def made(highest: int = 90, max_macs: int = 10**6, **changes: Any) -> tuple[Bench, list[Trial]]:
        bench = Bench(params, highest)
        plan, contest = replace(PLAN, **changes), replace(WASTE, max_macs=max_macs)
        return bench, Study(plan, contest, bench.propose, bench.train).run()

    return made


def drawn(trials: list[Trial]) -> list[object]:
    return [(t.number, t.state, t.proposal.params["c"], t.measured) for t in trials]


def test_the_better_half_goes_on_and_only_that(run: Made) -> None:
    bench, trials = run()
    by_number = {trial.number: trial for trial in trials}
    first, second, third = bench.trained[:3]
    assert (len(first[0]), len(second[0]), len(third[0])) == (4, 2, 1)
    assert (first[1], second[1], third[1]) == (1, 2, 4)
    channels = {n: by_number[n].proposal.params["c"] for n in first[0]}
    best = sorted(channels, key=lambda n: -channels[n])  # F1 is dear, these MACs are cheap
    assert second[0] == sorted(best[:2]) and third[0] == best[:1]
    assert [t.state for t in trials].count("complete") == 2
    assert {t.measured.epochs for t in trials if t.state == "complete" and t.measured} == {4}


def test_a_front_goes_on_with_what_adds_to_it(run: Made) -> None:
    """F1 is 10 + c % and MACs 1,000 c: all are on the front, and those in the middle add most."""
    bench, trials = run(objective="front", max_macs=91_000)
    channels = {t.number: t.proposal.params["c"] for t in trials if t.state != "over-budget"}
    first, second, third = (numbers for numbers, _ in bench.trained[:3])
    volume = {n: (10 + channels[n]) * (91 - channels[n]) for n in first}
    middle = max(first, key=volume.__getitem__)
    assert third == [middle] and middle in second
    assert middle != max(first, key=channels.__getitem__)  # which the score would keep


def test_the_planned_epochs_are_those_that_are_trained(run: Made) -> None:
    for changes in ({}, {"trials": 7}, {"trials": 3}, {"rungs": (4,)}, {"generation": 3}):
        bench, _ = run(**changes)
        trained, before = 0, 0
        for trials, until in bench.trained:
            before = 0 if until == replace(PLAN, **changes).rungs[0] else before
            trained += len(trials) * (until - before)
            before = until
        assert replace(PLAN, **changes).epochs() == trained


@pytest.mark.parametrize("objective", ["score", "front"])
@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
def test_a_study_is_the_same_each_time_and_another_with_another_seed(
    run: Made, name: str, objective: str
) -> None:
    changes = {"sampler": name, "objective": objective, "trials": 24}
    _, first = run(**changes)
    _, again = run(**changes)
    _, other = run(**changes, seed=1)
    assert drawn(first) == drawn(again)
    assert drawn(first) != drawn(other)


def test_tpe_finds_better_than_random(run: Made) -> None:
    means = {}
    for name in ("tpe", "random"):
        _, trials = run(highest=5000, max_macs=10**9, sampler=name, trials=64, rungs=(1,))
        means[name] = np.mean([t.proposal.params["c"] for t in trials[32:]])
    assert means["tpe"] < means["random"] / 2  # past 90 channels only the MACs grow


def test_the_gate_is_exact(run: Made) -> None:
    _, trials = run(max_macs=45_000)
    macs = {t.number: t.proposal.cost.macs for t in trials}
    assert {n for n in macs if macs[n] > 45_000} == {
        t.number for t in trials if t.state == "over-budget"
    }
    edge = max(m for m in macs.values() if m <= 45_000)
    _, at = run(max_macs=edge)
    _, below = run(max_macs=edge - 1)
    states = [{t.proposal.cost.macs: t.state for t in found} for found in (at, below)]
    assert states[0][edge] != "over-budget" and states[1][edge] == "over-budget"


def test_what_is_over_the_gate_is_never_trained_and_never_counts(run: Made) -> None:
    bench, trials = run(max_macs=20_000)
    over = {t.number for t in trials if t.state == "over-budget"}
    assert over and not any(over & set(numbers) for numbers, _ in bench.trained)
    assert len(trials) - len(over) == PLAN.trials
    assert all(t.measured is None for t in trials if t.number in over)


def test_nothing_under_the_gate_ends_after_so_many_asks(run: Made) -> None:
    bench, trials = run(max_macs=999, sampler="random")
    assert bench.trained == []
    assert {t.state for t in trials} == {"over-budget"}
    assert trials[-1].number < MAX_REJECTED


def test_a_network_is_trained_once_and_a_small_space_ends_early(run: Made) -> None:
    _, trials = run(highest=5, sampler="random")
    assert sorted(t.proposal.params["c"] for t in trials) == [1, 2, 3, 4, 5]


def test_a_baseline_never_stops(params: Params) -> None:
    bench = Bench(params)
    study = Study(replace(PLAN, baseline=0), WASTE, bench.propose, bench.train)
    study.enqueue({"c": 1})
    trials = study.run()
    assert trials[0].proposal.params == {"c": 1}
    assert trials[0].state == "complete"
