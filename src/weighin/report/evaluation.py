"""What the answers are worth: F1, score, their intervals, calibration, the worst mistakes.

N images, K classes. Intervals are 95 % bootstrap intervals over images, with the grader's own seed,
so that the grader finds the same ones on the same answers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weighin.determinism import generator
from weighin.grading.f1 import Confusion, agreement
from weighin.grading.grade import SEED
from weighin.grading.risk import Risk, bootstrap_f1, risk
from weighin.grading.score import Metrics, Score, score
from weighin.params import Contest
from weighin.report.inputs import Answers

Floats = npt.NDArray[np.float64]
BINS = 10  # of confidence, all of one width


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on one split."""

    table: Confusion
    risk: Risk
    score: Score
    score_low: float
    score_high: float


@dataclass(frozen=True)
class Calibration:
    """Bins of confidence: how many images, how confident on average, how often right."""

    images: npt.NDArray[np.int64]  # (BINS,)
    confidence: Floats  # (BINS,), NaN in an empty bin
    accuracy: Floats  # (BINS,), NaN in an empty bin
    error: float


@dataclass(frozen=True)
class Mistake:
    """A validation image that was labelled wrongly, and how sure the network was."""

    name: str
    true: str
    predicted: str
    confidence: float


def evaluate(
    table: Confusion, macs: int, parameters: int, contest: Contest, resamples: int
) -> Evaluation:
    """Return the figures of a confusion table; the interval is the bootstrap's 2.5 % to 97.5 %.

    An accuracy of N images drawn with replacement is Binomial(N, accuracy) / N: it is drawn as
    that, for no formula uses both it and F1.
    """
    found = score(contest, Metrics(table.f1, table.accuracy, macs, parameters))
    images = int(table.counts.sum())
    f1s = bootstrap_f1(table, resamples, SEED)
    hits = generator(SEED, "bootstrap accuracy").binomial(images, table.accuracy, size=resamples)
    scores = [
        score(contest, Metrics(float(f1), float(right), macs, parameters)).value
        for f1, right in zip(f1s, hits / images, strict=True)
    ]
    low, high = np.quantile(scores, (0.025, 0.975))
    spread = risk(table, contest.floor_f1, resamples, SEED)
    return Evaluation(table, spread, found, float(low), float(high))


def tabulate(answers: Answers) -> Confusion:
    """Return the confusion of the answers' truth and likeliest classes."""
    return agreement(answers.truth, answers.logits.argmax(axis=1), answers.classes)


def confidences(logits: npt.NDArray[np.float32]) -> Floats:
    """Return the softmax probability (N,) of each image's likeliest class."""
    exact = logits.astype(np.float64)
    shifted = np.exp(exact - exact.max(axis=1, keepdims=True))
    return np.asarray(1.0 / shifted.sum(axis=1))


def calibrate(answers: Answers) -> Calibration:
    """Return the reliability bins and the expected calibration error.

    sum over bins of (images / N) |accuracy - confidence| (Guo et al., "On calibration of modern
    neural networks", ICML 2017).
    """
    sure = confidences(answers.logits)
    right = answers.logits.argmax(axis=1) == answers.truth
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    images = np.bincount(place, minlength=BINS)
    whole = np.where(images > 0, images, np.nan)
    confidence = np.bincount(place, sure, BINS) / whole
    accuracy = np.bincount(place, right, BINS) / whole
    gaps = np.nan_to_num(np.abs(accuracy - confidence))
    return Calibration(images, confidence, accuracy, float((gaps * images).sum() / images.sum()))


def worst_mistakes(answers: Answers, many: int) -> list[Mistake]:
    """Return the `many` wrong labels that the network was surest of, ties in name order."""
    sure = confidences(answers.logits)
    predicted = answers.logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != answers.truth).tolist()
    wrong.sort(key=lambda place: (-sure[place], answers.names[place]))
    return [
        Mistake(
            answers.names[place],
            answers.classes[answers.truth[place]],
            answers.classes[predicted[place]],
            float(sure[place]),
        )
        for place in wrong[:many]
    ]
