"""Macro F1, accuracy and the tables behind them, from truth and predictions, in NumPy alone.

K is the number of classes, N of images. Classes are those that occur in the truth or in the
predictions: a class that neither holds takes no part in the mean, and one that is predicted but
never true counts as an F1 of 0. It is scikit-learn's `f1_score(average="macro",
zero_division=0)`, against which the tests check it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassRow:
    """One class's line of the table; shares from 0 to 1."""

    name: str
    images: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often class i (row, true) was labelled j (column): `counts` is (K, K)."""

    classes: tuple[str, ...]
    counts: Counts

    @property
    def accuracy(self) -> float:
        """The share of images with the right label."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def f1(self) -> float:
        """The macro F1."""
        return float(macro_f1(self.counts))

    def rows(self) -> list[ClassRow]:
        """Return the per-class table, in the order of `classes`."""
        hits = np.diag(self.counts)
        predicted, images = self.counts.sum(axis=0), self.counts.sum(axis=1)
        columns = (_share(hits, predicted), _share(hits, images), class_f1(self.counts))
        return [
            ClassRow(
                name, int(images[k]), int(predicted[k]), *(float(column[k]) for column in columns)
            )
            for k, name in enumerate(self.classes)
        ]


def confusion(truth: Sequence[str], predicted: Sequence[str]) -> ConfusionMatrix:
    """Return the confusion of two label lists of length N, its classes in sorted order."""
    classes = tuple(sorted({*truth, *predicted}))
    index = {name: k for k, name in enumerate(classes)}
    true = np.array([index[name] for name in truth], dtype=np.int64)
    pred = np.array([index[name] for name in predicted], dtype=np.int64)
    return ConfusionMatrix(classes, _counted(true, pred, len(classes)))


def confusion_of_indices(
    truth: Counts, predicted: Counts, classes: Sequence[str]
) -> ConfusionMatrix:
    """Return the confusion of two arrays (N,) of indices into `classes`."""
    return ConfusionMatrix(tuple(classes), _counted(truth, predicted, len(classes)))


def class_f1(counts: Counts) -> Floats:
    """Return each class's F1 = 2 TP / (2 TP + FP + FN) of (..., K, K) counts, NaN for 0 / 0."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return f1_of(hits, counts.sum(axis=-1) + counts.sum(axis=-2))


def f1_of(hits: Counts | Floats, total: Counts | Floats) -> Floats:
    """Return 2 `hits` / `total`, elementwise; NaN where a class does not occur."""
    whole = np.where(total > 0, total, 1)
    return np.where(total > 0, 2.0 * hits / whole, np.nan)


def macro_f1(counts: Counts) -> Floats:
    """Return the mean F1 over the classes that occur, of (..., K, K) counts."""
    return np.nanmean(class_f1(counts), axis=-1)  # type: ignore[no-any-return]


def _counted(truth: Counts, predicted: Counts, size: int) -> Counts:
    counts = np.bincount(truth * size + predicted, minlength=size * size)
    return counts.reshape(size, size).astype(np.int64)


def _share(part: Counts, whole: Counts) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0)
