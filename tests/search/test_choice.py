"""The choice at the end: expected score, floor, reason, and what is written down."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.search.measures import measured

from weighin.files import read_json
from weighin.grading.score import WASTE, Cost, score
from weighin.network.spec import NetworkSpec, Row
from weighin.params import Params
from weighin.search.choice import choose, study_record
from weighin.search.study import Proposal, Trial, proxy_score
from weighin.search.trials import read_trials, write_trials

SPEC = NetworkSpec((8, 8), 1.0, (Row(1, "Linear", ("classes",)),))


@pytest.fixture
def trial(params: Params) -> object:
    def made(number: int, hits: int, macs: int, state: str = "complete") -> Trial:
        """A trial with `hits` of 100 images of each of two classes right: F1 is hits %."""
        proposal = Proposal({"c": number}, SPEC, params.recipe, Cost(macs, 10))
        return Trial(number, proposal, state, measured(4, hits, hits))

    return made


def test_a_safe_network_beats_a_better_one_that_may_fall_under_the_floor(trial) -> None:  # type: ignore[no-untyped-def]
    near, safe = trial(0, 51, 100_000), trial(1, 65, 2_700_000)
    choice = choose([near, safe], WASTE, 0)
    assert score(WASTE, near.metrics()).value < score(WASTE, safe.metrics()).value
    assert choice.scores[0].under_floor > 0.3 and choice.scores[1].under_floor == 0.0
    assert [t.number for t in choice.ranked] == [1, 0]


def test_a_contest_of_accuracy_ignores_the_f1(trial) -> None:  # type: ignore[no-untyped-def]
    """2 classes of 100 images: one always right and one always wrong is an F1 of 1/3."""
    contest = replace(WASTE, score="accuracy")
    uneven, even = trial(0, 50, 1000), trial(1, 49, 1000)
    uneven.measured = measured(4, 100, 1)  # accuracy 0.505, F1 1/3
    choice = choose([uneven, even], contest, 0)
    assert [t.number for t in choice.ranked] == [0, 1]
    assert choice.scores[0].under_floor == 0.0
    assert choice.scores[0].expected == pytest.approx(1 - 101 / 200, abs=0.005)
    assert "floor" not in choice.why and "risk" not in choice.why


def test_where_all_are_under_the_floor_the_size_alone_does_not_win(trial) -> None:  # type: ignore[no-untyped-def]
    small, better = trial(0, 20, 10_000), trial(1, 40, 300_000)
    choice = choose([small, better], WASTE, 0)
    assert choice.ranked[0].number == 1
    assert "all are likely under the floor of 0.5, and it comes closest" in choice.why


def test_the_reason_is_in_words(trial) -> None:  # type: ignore[no-untyped-def]
    choice = choose([trial(0, 70, 1_000_000), trial(1, 60, 900_000)], WASTE, 0)
    found = choice.scores
    scores = [score(WASTE, t.metrics()).value for t in choice.ranked]
    assert choice.why == (
        "Trial 0 leads the 2 that were trained to the end: it has the lowest expected score "
        f"(score {found[0].expected:.4f} expected, {scores[0]:.4f} measured; validation F1 "
        f"0.700, 95 % between {found[0].low:.3f} and {found[0].high:.3f}; 1,000,000 MACs; 0.0% "
        "risk of an F1 under 0.5). The next best is trial 1 "
        f"(score {found[1].expected:.4f} expected, {scores[1]:.4f} measured; validation F1 "
        f"0.600, 95 % between {found[1].low:.3f} and {found[1].high:.3f}; 900,000 MACs; "
        f"{found[1].under_floor:.1%} risk of an F1 under 0.5)."
    )


def test_the_record_is_read_as_it_was_written(tmp_path: Path, trial) -> None:  # type: ignore[no-untyped-def]
    over = replace(trial(1, 0, 9), state="over-budget", measured=None)
    trials = [trial(0, 70, 1_000_000), over, trial(2, 30, 500_000, "pruned")]
    written = study_record(trials, choose(trials, WASTE, 0), WASTE)
    write_trials(tmp_path, written)
    study, values = read_trials(tmp_path), read_json(tmp_path / "trials.json")
    assert study == written
    assert study.chosen == 0 and study.why == values["why"]
    assert [t.state for t in study.trials] == ["complete", "over-budget", "pruned"]
    assert [t.f1 for t in study.trials] == [0.7, None, 0.3]
    assert study.trials[0].score == pytest.approx(1e6 / 13_865_375 + 1 - 0.7 / 0.83656, abs=1e-6)
    assert [t.macs for t in study.trials] == [1_000_000, 9, 500_000]
    assert values["trials"][0]["network"] == SPEC.to_yaml()
    assert "network" not in values["trials"][1]
    assert values["trials"][2]["epochs"] == 4


def test_the_choice_says_how_sure_it_is(trial) -> None:  # type: ignore[no-untyped-def]
    """Two whose mistakes are on other images differ by chance; F1 70 % and 69 %."""
    aside = trial(1, 69, 10**6)
    labels = aside.measured.labels
    aside.measured = replace(aside.measured, labels=labels[99::-1] + labels[:99:-1])
    close, apart = (
        choose([trial(0, 70, 10**6), other], WASTE, 0).rivals[0]
        for other in (aside, trial(1, 40, 10**6))
    )
    assert close.number == apart.number == 1
    assert close.difference == pytest.approx(0.01 / 0.83656, abs=0.01)
    assert close.low < 0 < close.high and 0.5 < close.better < 0.9
    assert apart.low > 0 and apart.better == 1.0
    assert choose([trial(0, 70, 10**6)], WASTE, 0).rivals == ()


def test_equal_answers_differ_by_their_size_alone(trial) -> None:  # type: ignore[no-untyped-def]
    """A paired bootstrap: what both get wrong cancels out, image by image."""
    (found,) = choose([trial(0, 70, 10**6), trial(1, 70, 2 * 10**6)], WASTE, 0).rivals
    step = pytest.approx(10**6 / WASTE.reference_macs, abs=1e-6)
    assert (found.difference, found.low, found.high, found.better) == (step, step, step, 1.0)


def test_the_next_best_five_are_rivals_and_four_finalists(trial) -> None:  # type: ignore[no-untyped-def]
    choice = choose([trial(n, 70, 10**6 + n) for n in range(7)], WASTE, 0)
    assert [rival.number for rival in choice.rivals] == [1, 2, 3, 4, 5]
    assert choice.finalists() == choice.ranked[:1]  # equal labels: the fewest MACs are the best
    aside = [trial(n, 69 - n, 10**6) for n in range(1, 7)]
    for one in aside:
        labels = one.measured.labels
        one.measured = replace(one.measured, labels=labels[99::-1] + labels[:99:-1])
    choice = choose([trial(0, 70, 10**6), trial(7, 30, 10**6), *aside], WASTE, 0)
    assert [one.number for one in choice.finalists()] == [0, 1, 2, 3]


def test_what_trained_again_without_inherited_weights_decides(trial) -> None:  # type: ignore[no-untyped-def]
    """The floor is one of those trainings too: trial 2, which did not train again, is above."""
    warm = [trial(0, 90, 10**6), trial(1, 86, 3 * 10**5), trial(2, 80, 10**6)]
    again = {0: [trial(0, 44, 10**6)], 1: [trial(1, 18, 3 * 10**5)]}
    contest = replace(WASTE, floor_f1=0.5)
    choice = choose(warm, contest, 0, further=again)
    assert [one.number for one in choice.ranked] == [0, 1, 2]
    assert choice.ranked[0] is warm[0]
    assert (
        "all are likely under the floor of 0.5, and it comes closest, trained without" in choice.why
    )
    assert "validation F1 0.440" in choice.why and "validation F1 0.180" in choice.why
    proxies = [proxy_score(contest, again[number][0].metrics()) for number in (0, 1)]
    assert [one.scores for one in choice.splits] == [pytest.approx((p,), abs=2e-6) for p in proxies]
    record = study_record(warm, choice, contest)
    assert "Trained again from their own start: trial 0 " in record.certainty()[-1]


def test_the_mean_over_the_splits_decides(tmp_path: Path, trial) -> None:  # type: ignore[no-untyped-def]
    """Trial 1 is behind on the first split and ahead in the mean of three."""
    trials = [trial(0, 70, 10**6), trial(1, 69, 10**6), trial(2, 60, 10**6)]
    hits = {0: (60, 62), 1: (72, 66)}
    further = {
        number: [replace(trial(number, many, 10**6), split=at) for at, many in enumerate(both, 1)]
        for number, both in hits.items()
    }
    choice = choose(trials, WASTE, 0, further=further)
    assert [one.number for one in choice.ranked] == [1, 0, 2]
    by_hand = {
        n: [1e6 / WASTE.reference_macs + 1 - f1 / 100 / WASTE.reference_f1 for f1 in f1s]
        for n, f1s in {0: (70, 60, 62), 1: (69, 72, 66)}.items()
    }
    for found in choice.splits:
        scores = by_hand[found.number]
        assert found.scores == pytest.approx(scores, abs=0.01)
        assert found.mean == pytest.approx(sum(found.scores) / 3, abs=2e-6)
        assert found.mean == pytest.approx(sum(scores) / 3, abs=0.005)
        spread = sum((one - found.mean) ** 2 for one in found.scores) / 2
        assert found.error == pytest.approx((spread / 3) ** 0.5, abs=2e-6)
    assert [found.number for found in choice.splits] == [1, 0]
    assert "in the mean of 3 validation splits" in choice.why
    pooled, first_alone = choice.rivals
    assert pooled.difference == pytest.approx(
        (69 + 72 + 66 - 70 - 60 - 62) / 300 / 0.83656, abs=0.01
    )
    assert first_alone.difference == pytest.approx(0.09 / 0.83656, abs=0.01)
    written = study_record(trials, choice, WASTE)
    write_trials(tmp_path, written)
    assert read_trials(tmp_path) == written and written.chosen == 1
