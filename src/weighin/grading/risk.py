"""How far a measured F1 may be off on unseen data, and the risk that it falls under the floor.

Bootstrap (Efron, 1979) over images. N images drawn with replacement are, for the confusion counts,
one multinomial draw over the cells that are not empty, of which there are at most N: 10,000
resamples of 8,148 images of 9 classes take under 0.2 s (tests/grading/test_risk.py measures it)
instead of 80 million indices, and time and memory follow the cells, not the classes' square.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weighin.determinism import generator
from weighin.grading.score import (
    ConfusionMatrix,
    Cost,
    Counts,
    Floats,
    Metrics,
    f1_of,
    has_floor,
    score,
)
from weighin.params import Contest

CHOICE_RESAMPLES = 1_000
Kinds = tuple[Counts, Counts | None]  # of units: how many (U,), their images by cell (U, C)
Value = Callable[[Metrics], float]  # of a network's figures, such as a contest's score
CHUNK = 2**21  # counts drawn at once, to bound the memory; the draws do not depend on it


@dataclass(frozen=True)
class Risk:
    """A 95 % interval of the macro F1, and the chance that it is under the floor."""

    low: float
    high: float
    under_floor: float
    resamples: int


def risk(found: ConfusionMatrix, floor: float, resamples: int, seed: int) -> Risk:
    """Return the bootstrap interval (2.5 % to 97.5 %) and the share of resamples under `floor`."""
    return risk_of(bootstrap_f1(found, resamples, seed), floor)


def risk_of(f1s: Floats, floor: float) -> Risk:
    """Return the interval of the macro F1 of bootstrap samples and their share under `floor`."""
    low, high = np.quantile(f1s, (0.025, 0.975))
    return Risk(float(low), float(high), float(np.mean(f1s < floor)), len(f1s))


@dataclass(frozen=True)
class ExpectedScore:
    """What a contest's score is expected to be on other images: its mean over resamples.

    `low` and `high` bound 95 % of the macro F1; `under_floor` is the share of resamples under the
    contest's floor, 0 where its score has none.
    """

    expected: float
    low: float
    high: float
    under_floor: float


def expected_score(
    contest: Contest,
    found: ConfusionMatrix,
    cost: Cost,
    seed: int,
    resamples: int = CHOICE_RESAMPLES,
) -> ExpectedScore:
    """Return the expected score of a network that labelled images so; lower is better.

    Every choice between networks goes by it: a network that may fall under the floor, or out of the
    contest, pays for that in proportion, where the score of one sample is on one side or the other.
    """
    f1s, accuracies = bootstrap(found, resamples, seed)
    low, high = np.quantile(f1s, (0.025, 0.975)).tolist()
    scores = scores_of(contest, (f1s, accuracies), cost)
    under = float(np.mean(f1s < contest.floor_f1)) if has_floor(contest) else 0.0
    return ExpectedScore(float(np.mean(scores)), low, high, under)


@dataclass(frozen=True)
class Labeled:
    """What a network labeled images (N,), as indices of classes, and its costs."""

    labels: Counts
    cost: Cost


@dataclass(frozen=True)
class Comparison:
    """How much lower one network's score is than another's, on resamples of the same images.

    `low` and `high` bound 95 % of the differences, `better` is the share of resamples in which it
    is lower (equal scores count half).
    """

    difference: float
    low: float
    high: float
    better: float


def compare(
    value: Value,
    truth: Counts,
    first: Labeled,
    second: Labeled,
    seed: int,
    units: Counts | None = None,
) -> Comparison:
    """Return how sure it is that `first` has a lower `value` than `second`; all labels are (N,).

    A paired bootstrap: each resample draws the same images for both. Images of one unit, where
    `units` (N,) numbers them, are drawn together (a cluster bootstrap; Field and Welsh, 2007).
    """
    cells, at = np.unique(
        np.stack([truth, first.labels, second.labels]), axis=1, return_inverse=True
    )
    kinds, size, scores = _units(at, units), int(cells.max()) + 1, []
    for labels, network in zip(cells[1:], (first, second), strict=True):
        quality = _resampled(cells[0], labels, kinds, size, CHOICE_RESAMPLES, seed)
        scores.append(_values(value, quality, network.cost))
    difference = np.array(scores[1]) - np.array(scores[0])
    low, high = np.quantile(difference, (0.025, 0.975)).tolist()
    better = np.mean(difference > 0) + np.mean(difference == 0) / 2
    return Comparison(float(np.mean(difference)), low, high, float(better))


def _units(at: Counts, units: Counts | None) -> Kinds:
    """Return the kinds of units.

    `at` (N,) is the cell of each image. Without units of several images, each cell is a kind,
    of one image: None.
    """
    cells = np.bincount(at)
    unit = np.arange(len(at)) if units is None else np.unique(units, return_inverse=True)[1]
    together = np.bincount(unit)[unit] > 1
    if not together.any():
        return cells, None
    _, row = np.unique(unit[together], return_inverse=True)
    groups = np.zeros((row.max() + 1, len(cells)), np.int64)
    np.add.at(groups, (row, at[together]), 1)
    alone = np.bincount(at[~together], minlength=len(cells))
    kinds = np.concatenate([np.eye(len(cells), dtype=np.int64), groups])
    return np.concatenate([alone, np.ones(len(groups), np.int64)]), kinds


def scores_of(contest: Contest, quality: tuple[Floats, Floats], cost: Cost) -> list[float]:
    """Return the scores of a network of these costs at each macro F1 and accuracy (R,)."""
    return _values(lambda metrics: score(contest, metrics).value, quality, cost)


def _values(value: Value, quality: tuple[Floats, Floats], cost: Cost) -> list[float]:
    pairs = zip(*(values.tolist() for values in quality), strict=True)
    return [value(Metrics.of(f1, acc, cost)) for f1, acc in pairs]


def bootstrap_f1(found: ConfusionMatrix, resamples: int, seed: int) -> Floats:
    """Return the macro F1 of `resamples` bootstrap samples, by the convention of score.py."""
    return bootstrap(found, resamples, seed)[0]


def bootstrap(found: ConfusionMatrix, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Return the macro F1 and the accuracy of each of `resamples` bootstrap samples."""
    true, label = np.nonzero(found.counts)
    cells = found.counts[true, label]
    return _resampled(true, label, (cells, None), len(found.classes), resamples, seed)


def _resampled(
    true: Counts, label: Counts, kinds: Kinds, size: int, resamples: int, seed: int
) -> tuple[Floats, Floats]:
    """Return macro F1 and accuracy, each (resamples,), of images in C cells.

    `true` and `label` (C,) are their classes, under `size` (K); the cells are in order of `true`.
    """
    units, images = kinds
    hits, by_label = np.flatnonzero(true == label), np.argsort(label, kind="stable")
    random = generator(seed, "bootstrap")
    chunk = max(1, CHUNK // max(len(units), size))
    f1s, accuracies = [], []
    for start in range(0, resamples, chunk):
        many = min(chunk, resamples - start)
        drawn = random.multinomial(units.sum(), units / units.sum(), size=many)  # (many, U)
        if images is not None:
            drawn = (drawn @ images.astype(float)).astype(np.int64)  # (many, C); exact
        right = _sums(drawn[:, hits], true[hits], size)  # (many, K)
        total = _sums(drawn, true, size) + _sums(drawn[:, by_label], label[by_label], size)
        f1s.append(np.nanmean(f1_of(right, total), axis=1))
        accuracies.append(right.sum(axis=1) / drawn.sum(axis=1))
    return np.concatenate(f1s), np.concatenate(accuracies)


def _sums(drawn: Counts, classes: Counts, size: int) -> Counts:
    """Return the sums (many, `size`) of the columns of each class; `classes` are in order."""
    sums = np.zeros((len(drawn), size), np.int64)
    if len(classes):
        starts = np.flatnonzero(np.diff(classes, prepend=-1))
        sums[:, classes[starts]] = np.add.reduceat(drawn, starts, axis=1)
    return sums
