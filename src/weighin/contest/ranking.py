"""Ranks that are honest about chance: scores, intervals and ranks from one paired bootstrap.

S is the number of submissions, N of images, R of resamples, K of classes. A resample draws N images
with replacement (Efron, 1979), the same ones for every submission, so that differences between
submissions are compared on equal images.

The rank interval of a submission is that of Mogstad, Romano, Shaikh and Wilhelm ("Inference for
Ranks", Review of Economic Studies, 2024) with marginal intervals of each difference: it ranks below
every submission that is better beyond chance, and above every one that is worse beyond chance. On
400 simulated contests of nearly equal submissions it holds the true rank in 95 % of the cases, and
in more where the submissions lie further apart (tests/contest/test_ranking.py).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse

from weighin.contest.grading import Outcome
from weighin.determinism import generator
from weighin.grading.risk import scores_of
from weighin.grading.score import LIMITS, Cost, f1_of, has_floor
from weighin.params import Contest

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]  # whole numbers, whose sums are exact
LEVEL = 0.95


@dataclass(frozen=True)
class Entry:
    """A graded submission: one label for each image, and its costs."""

    labels: Sequence[str]
    cost: Cost


@dataclass(frozen=True)
class Standing:
    """What a submission may claim on one part of the test images."""

    score: float
    low: float  # of the score's 95 % interval
    high: float
    f1: float
    accuracy: float
    rank: int  # 1 is the best; equal scores share a rank
    best_rank: int  # of the rank's 95 % interval
    worst_rank: int
    beats_next: float | None  # share of resamples in which it beats the next one; None for the last
    under_floor: float  # share of resamples in which its F1 is under the contest's floor
    class_f1: dict[str, float]


@dataclass(frozen=True)
class Line:
    """A submission on the board; None where there is nothing to rank."""

    outcome: Outcome
    private: Standing | None = None
    public: Standing | None = None
    same_as: tuple[str, ...] = ()  # teams with the same ONNX file or the same answers
    rebuilt: str = "not tried"

    @property
    def team(self) -> str:
        """Return the team's name."""
        return self.outcome.team

    @property
    def deciding(self) -> Standing | None:
        """Return the standing that ranks it: the private one, where there is a private part."""
        return self.private or self.public


@dataclass(frozen=True)
class Board:
    """All lines, the best first, those without figures last; how many images each part has."""

    lines: tuple[Line, ...]
    contest: Contest
    private_images: int
    public_images: int
    name: str = "Leaderboard"
    notes: tuple[str, ...] = ()  # how the truth was read, where it was not plain

    @property
    def deciding(self) -> tuple[str, int]:
        """Return the part that ranks, and how many images it has."""
        if self.private_images:
            return "private", self.private_images
        return "public", self.public_images

    @property
    def formula(self) -> str:
        """Return the name of the contest's score; of one's own that of its file, without a path."""
        return Path(self.contest.score).name

    @property
    def public(self) -> "Board":
        """Return what may be shown while a contest runs: nothing of the private part."""
        lines = sorted((replace(line, private=None) for line in self.lines), key=order)
        return replace(self, lines=tuple(lines), private_images=0)


def order(line: Line) -> tuple[bool, float, str]:
    """Return what a line is placed by: its score, then its name; those without figures last."""
    return (line.deciding is None, line.deciding.score if line.deciding else 0.0, line.team)


def hard_limits(contest: Contest) -> list[str]:
    """Return the limits of a contest that put a model over them out of it.

    `max_macs` bounds what is searched; "accuracy" is the one formula that asks for it.
    """
    names = (name for name in LIMITS if getattr(contest, name) is not None)
    return [name for name in names if name != "max_macs" or contest.score == "accuracy"]


def broken_limits(contest: Contest, cost: Cost) -> tuple[str, ...]:
    """Return the hard limits that a model of these costs breaks, and by how much, in words."""
    broken = []
    for name in hard_limits(contest):
        field, unit = LIMITS[name]
        value, limit = getattr(cost, field), getattr(contest, name)
        if value > limit:
            over = f"{value - limit:,} over contest.{name}, which is {limit:,}"
            broken.append(f"{value:,} {unit}, {over}")
    return tuple(broken)


def with_rebuilt(board: Board, team: str, verdict: str) -> Board:
    """Return a board that says what came of rebuilding a team's submission."""
    lines = (replace(line, rebuilt=verdict) if line.team == team else line for line in board.lines)
    return replace(board, lines=tuple(lines))


def is_public(name: str, share: float, seed: int) -> bool:
    """Return whether an image is of the public part: decided by a hash of its name alone."""
    digest = hashlib.sha256(f"{seed}\n{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def standings(
    truth: Sequence[str], entries: Sequence[Entry], contest: Contest, resamples: int, seed: int
) -> list[Standing]:
    """Return the standing of each entry on images whose classes are `truth` (N,)."""
    weights = _weights(len(truth), resamples, seed)
    measured = [_measured(truth, entry, weights) for entry in entries]
    scores = np.array(
        [
            scores_of(contest, (f1, accuracy), entry.cost)
            for entry, (f1, accuracy, _) in zip(entries, measured, strict=True)
        ]
    )  # (S, 1 + R)
    return _placed(scores, measured, contest.floor_f1 if has_floor(contest) else 0.0)


def _weights(count: int, resamples: int, seed: int) -> Weights:
    """Return how often each image (N,) counts: once, and then as often as a resample draws it."""
    random = generator(seed, "leaderboard")
    rows = np.ones((1 + resamples, count), np.float32)
    for row in rows[1:]:
        row[:] = np.bincount(random.integers(count, size=count), minlength=count)
    return np.ascontiguousarray(rows.T)  # (N, 1 + R): a sum over images adds whole rows


def rank_intervals(resampled: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the best and the worst rank that each row of scores (S, R) may claim."""
    tail = (1 - LEVEL) / 2
    total = len(resampled)
    best, worst = np.empty(total, np.int64), np.empty(total, np.int64)
    for row, own in enumerate(resampled):
        low, high = np.quantile(own - resampled, (tail, 1 - tail), axis=1)  # (S,) each
        best[row] = 1 + np.count_nonzero(low > 0)  # these have a lower score beyond chance
        worst[row] = total - np.count_nonzero(high < 0)
    return best, worst


def _placed(
    scores: Floats, measured: Sequence[tuple[Floats, Floats, dict[str, float]]], floor: float
) -> list[Standing]:
    own, resampled = scores[:, 0], scores[:, 1:]
    low, high = np.quantile(resampled, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=1)
    best, worst = rank_intervals(resampled)
    order = np.argsort(own, kind="stable")
    following = dict(zip(order.tolist(), order[1:].tolist(), strict=False))
    return [
        Standing(
            score=float(own[row]),
            low=float(low[row]),
            high=float(high[row]),
            f1=float(f1[0]),
            accuracy=float(accuracy[0]),
            rank=1 + int(np.count_nonzero(own < own[row])),
            best_rank=int(best[row]),
            worst_rank=int(worst[row]),
            beats_next=_beats(resampled, row, following.get(row)),
            under_floor=float(np.mean(f1[1:] < floor)),
            class_f1=classes,
        )
        for row, (f1, accuracy, classes) in enumerate(measured)
    ]


def _beats(resampled: Floats, row: int, other: int | None) -> float | None:
    """Return the share of resamples in which one row is lower than another; ties count half."""
    if other is None:
        return None
    difference = resampled[other] - resampled[row]
    return float(np.mean(difference > 0) + np.mean(difference == 0) / 2)


def _measured(
    truth: Sequence[str], entry: Entry, weights: Weights
) -> tuple[Floats, Floats, dict[str, float]]:
    """Return macro F1 and accuracy (1 + R,) of weighted images, and the F1 of each true class.

    The convention is that of grading/score.py: a class that occurs neither in the truth nor in the
    labels of a resample takes no part in its mean.
    """
    names = sorted({*truth, *entry.labels})
    index = {name: k for k, name in enumerate(names)}
    true = np.array([index[name] for name in truth])
    labels = np.array([index[name] for name in entry.labels])
    right = true == labels

    def summed(classes: Indices, images: Indices) -> Floats:
        """Return the weight (K, 1 + R) of each class's images."""
        ones = np.ones(len(images), np.float32)
        of_class = scipy.sparse.csr_array((ones, (classes, images)), (len(names), len(true)))
        return np.asarray(of_class @ weights, np.float64)

    images = np.arange(len(true))
    hits = summed(true[right], images[right])
    by_class = f1_of(hits, summed(true, images) + summed(labels, images))
    of_truth = {name: float(by_class[index[name], 0]) for name in sorted(set(truth))}
    return np.nanmean(by_class, axis=0), hits.sum(axis=0) / len(true), of_truth
