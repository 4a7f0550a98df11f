"""The paired bootstrap: equal to the grader's figures, and its intervals hold what they promise."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm

from weighin.contest.ranking import Entry, is_public, rank_intervals, standings
from weighin.grading.score import WASTE, Cost, Metrics, confusion, score

CLASSES = ("Glass", "Metal", "Paper")
F1 = replace(WASTE, score="f1")


def drawn(
    rng: np.random.Generator, skills: npt.NDArray[np.float64], count: int, shared: float = 0.6
) -> tuple[list[str], list[Entry]]:
    """Return a truth and answers right with the given chances; what is hard is so for all."""
    truth = rng.integers(0, len(CLASSES), count)
    hardness = rng.normal(size=count)
    entries = []
    for skill in skills:
        luck = shared * hardness + (1 - shared**2) ** 0.5 * rng.normal(size=count)
        wrong = (truth + rng.integers(1, len(CLASSES), count)) % len(CLASSES)
        labels = np.where(luck < norm.ppf(skill), truth, wrong)
        entries.append(Entry([CLASSES[k] for k in labels], Cost(1000, 10)))
    return [CLASSES[k] for k in truth], entries


def test_figures_are_those_of_the_grader() -> None:
    truth, entries = drawn(np.random.default_rng(0), np.array([0.9, 0.6, 0.7]), 200)
    for entry, found in zip(entries, standings(truth, entries, WASTE, 200, 0), strict=True):
        table = confusion(truth, entry.labels)
        assert found.f1 == pytest.approx(table.f1, abs=1e-12)
        assert found.accuracy == table.accuracy
        metrics = Metrics.of(table.f1, table.accuracy, entry.cost)
        assert found.score == pytest.approx(score(WASTE, metrics).value, abs=1e-12)
        assert found.low < found.score < found.high
        assert found.class_f1 == pytest.approx({row.name: row.f1 for row in table.rows()})


def test_a_board_worked_out_by_hand() -> None:
    truth = ["a", "a", "b", "b"]
    answers = (["a", "a", "b", "b"], ["a", "b", "b", "b"], ["b", "b", "a", "a"])
    found = standings(truth, [Entry(labels, Cost(0, 0)) for labels in answers], F1, 400, 0)
    # F1 by class: 1, 1; 2/3, 4/5; 0, 0
    assert [row.f1 for row in found] == pytest.approx([1, 11 / 15, 0])
    assert [row.rank for row in found] == [1, 2, 3]
    assert [(row.best_rank, row.worst_rank) for row in found] == [(1, 2), (1, 2), (3, 3)]
    # the first does not beat the second in a resample without image 1: chance (3/4)^4, a tie
    assert found[0].beats_next == pytest.approx(1 - 0.75**4 / 2, abs=0.05)
    assert found[2].beats_next is None


def test_equal_answers_share_a_rank() -> None:
    truth, (entry, other) = drawn(np.random.default_rng(1), np.array([0.8, 0.7]), 100)
    found = standings(truth, [entry, entry, other], F1, 100, 0)
    assert [row.rank for row in found] == [1, 1, 3]
    assert found[0].beats_next == 0.5
    assert {(row.best_rank, row.worst_rank) for row in found[:2]} <= {(1, 2), (1, 3)}


def test_rank_intervals_hold_the_true_rank_in_95_of_100_contests() -> None:
    """400 contests of eight nearly equal submissions; 95 % +- 2 of the ranks are held."""
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        skills = 0.78 + rng.normal(0, 0.002, 8)
        truth, entries = drawn(rng, skills, 200)
        right = np.array([[a == b for a, b in zip(truth, e.labels, strict=True)] for e in entries])
        weights = rng.multinomial(200, np.full(200, 1 / 200), size=300)
        best, worst = rank_intervals(1 - right @ weights.T / 200)
        rank = np.argsort(np.argsort(-skills)) + 1
        held.append((best <= rank) & (rank <= worst))
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_unpaired_resamples_would_not_tell_submissions_apart() -> None:
    """The negative control: with other images for each, wider intervals of the difference."""
    truth, entries = drawn(np.random.default_rng(2), np.array([0.86, 0.78]), 300, 0.9)
    right = np.array([[a == b for a, b in zip(truth, e.labels, strict=True)] for e in entries])
    weights = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), size=(2, 2000))
    paired = 1 - right @ weights[0].T / 300
    unpaired = np.stack([paired[0], 1 - right[1] @ weights[1].T / 300])
    assert np.std(paired[0] - paired[1]) < 0.85 * np.std(unpaired[0] - unpaired[1])


def test_the_split_is_decided_by_name_and_seed_alone() -> None:
    names = [f"{i:04}.jpg" for i in range(4000)]
    public = {name for name in names if is_public(name, 0.25, 3)}
    assert len(public) / len(names) == pytest.approx(0.25, abs=0.02)
    assert {name for name in names[::2] if is_public(name, 0.25, 3)} == public & set(names[::2])
    assert {name for name in names if is_public(name, 0.25, 4)} != public
