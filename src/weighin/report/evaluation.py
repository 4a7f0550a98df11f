"""How good the predictions are: F1, score, intervals, calibration, worst mistakes, robustness.

N images, K classes. Intervals are 95 % bootstrap intervals over images, with the grader's own seed,
so that the grader finds the same ones on the same predictions. `metrics` makes metrics.json, the
numbers that `dvc metrics` shows and compares:

accuracy, f1, score             on the validation split
f1_low, f1_high                 95 % bootstrap interval; score_low, score_high likewise
f1_under_floor                  share of resamples under the contest's floor
calibration_error               expected, over ten bins of confidence
robustness                      F1 on corrupted validation images
test_...                        the same on data/test, where its truth is known; F1 by class is a
                                table of plots/, to keep `dvc exp show` on a screen
macs, parameters                counted from model.onnx by the contest's rule
size, peak_memory               bytes of the file; of one image's activations, in the best order

Robustness is what is left of macro F1 on the packed validation images, changed: four of the
corruptions of Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019, at one strength each, and another background; all of
images at the network's own size, uint8 (H, W, 3). Each is integer arithmetic, so that every machine
sees the same pixels.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from weighin.data.pack import Packed, read_packed
from weighin.determinism import generator
from weighin.grading.grade import SEED
from weighin.grading.model import Model
from weighin.grading.risk import Risk, bootstrap_f1, risk_of, scores_of
from weighin.grading.runtime import Runner
from weighin.grading.score import (
    ClassRow,
    ConfusionMatrix,
    Cost,
    Metrics,
    Score,
    confusion_of_indices,
    score,
)
from weighin.images import Pixels, decode
from weighin.params import Contest, Params
from weighin.report.inputs import ReportData, ValidationPredictions
from weighin.training.dataset import on_background, plain_background

MOST = 2000  # images, evenly spaced: more would take minutes and tell little more
NOISE = 32  # of 255: the largest change of a value, either way
QUALITY = 15  # of 95
BLOTS = (5, 7)  # rows and columns of a new background


@dataclass(frozen=True)
class Robustness:
    """Macro F1 as the images are and by corruption, and one image as each leaves it."""

    clean: float
    f1: dict[str, float]
    example: dict[str, Pixels]
    images: int


def robustness(model: Model, prepared: Path) -> Robustness:
    """Return what corruptions cost the exported model, labelling as the grader does.

    Raises:
        DataError: the validation images were not packed at the model's size.
        ModelError: ONNX Runtime refuses the model.
    """
    packed, runner = read_packed(prepared, "validation", model.size), Runner(model)
    every = -(-len(packed.labels) // MOST)
    rows = np.arange(0, len(packed.labels), every)
    f1s = {
        kind: _f1(packed, rows, runner, model.graph.batch, corrupt)
        for kind, (_, corrupt) in {"clean": ("", lambda image, _: image), **CORRUPTIONS}.items()
    }
    first = np.asarray(packed.images[rows[0]])
    example = {kind: corrupt(first, 0) for kind, (_, corrupt) in CORRUPTIONS.items()}
    return Robustness(f1s.pop("clean"), f1s, {"clean": first, **example}, len(rows))


def _f1(
    packed: Packed,
    rows: npt.NDArray[np.int64],
    runner: Runner,
    size: int,
    corrupt: Callable[[Pixels, int], Pixels],
) -> float:
    labels = [
        runner.logits(np.stack([corrupt(np.asarray(packed.images[row]), row) for row in part]))
        for part in (rows[start : start + size].tolist() for start in range(0, len(rows), size))
    ]
    predicted = np.concatenate(labels).argmax(axis=1)
    return confusion_of_indices(packed.labels[rows], predicted, packed.classes).f1


def blur(image: Pixels, row: int) -> Pixels:
    """Return the mean of each pixel and its eight neighbours."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(1)))


def noise(image: Pixels, row: int) -> Pixels:
    """Return each value changed by up to NOISE, evenly; another image has another noise."""
    random = generator(SEED, "robustness", row)
    added: npt.NDArray[np.int16] = random.integers(-NOISE, NOISE + 1, image.shape, np.int16)
    noisy: Pixels = np.clip(image + added, 0, 255).astype(np.uint8)
    return noisy


def jpeg(image: Pixels, row: int) -> Pixels:
    """Return the image as a JPEG of quality QUALITY leaves it."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=QUALITY)
    return decode(out.getvalue()).pixels


def dark(image: Pixels, row: int) -> Pixels:
    """Return the image in a third of the light."""
    return np.asarray(image // 3)


def background(image: Pixels, row: int) -> Pixels:
    """Return the image with smooth blots of color for its plain background, if it has one."""
    mask = plain_background(image)
    if mask is None:
        return image
    height, width, _ = image.shape
    blots = generator(SEED, "background", row).integers(0, 256, (*BLOTS, 3), np.uint8)
    new = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
    return on_background(image, mask, new)


CORRUPTIONS: dict[str, tuple[str, Callable[[Pixels, int], Pixels]]] = {
    "blur": ("each pixel is the mean of 3 × 3", blur),
    "noise": (f"each value is changed by up to {NOISE} of 255", noise),
    "jpeg": (f"saved as a JPEG of quality {QUALITY}", jpeg),
    "dark": ("a third of the light", dark),
    "background": ("a plain background becomes blots of color", background),
}


Floats = npt.NDArray[np.float64]
BINS = 10  # of confidence, all of one width
DIGITS = 6  # of a number in metrics.json


@dataclass(frozen=True)
class Evaluation:
    """A model's figures on one split."""

    table: ConfusionMatrix
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


@dataclass(frozen=True)
class Results:
    """What was computed from the data of a report."""

    data: ReportData
    params: Params
    evaluations: dict[str, Evaluation]  # by split, of those whose truth is known
    calibration: Calibration | None
    robustness: Robustness | None


def evaluate_splits(data: ReportData, params: Params) -> dict[str, Evaluation]:
    """Return {"validation": ..., "test": ...} of the splits whose truth and labels are known."""
    tables = {
        "validation": tabulate(data.validation) if data.validation else None,
        "test": data.test,
    }
    return {
        split: evaluate(table, data.cost, params.contest, params.report.bootstrap)
        for split, table in tables.items()
        if table is not None
    }


def evaluate(table: ConfusionMatrix, cost: Cost, contest: Contest, resamples: int) -> Evaluation:
    """Return the figures of a confusion table; the interval is the bootstrap's 2.5 % to 97.5 %.

    An accuracy of N images drawn with replacement is Binomial(N, accuracy) / N: it is drawn as
    that, for no formula uses both it and F1.
    """
    found = score(contest, Metrics.of(table.f1, table.accuracy, cost))
    images = int(table.counts.sum())
    f1s = bootstrap_f1(table, resamples, SEED)
    hits = generator(SEED, "bootstrap accuracy").binomial(images, table.accuracy, size=resamples)
    low, high = np.quantile(scores_of(contest, (f1s, hits / images), cost), (0.025, 0.975))
    spread = risk_of(f1s, contest.floor_f1)
    return Evaluation(table, spread, found, float(low), float(high))


def tabulate(predictions: ValidationPredictions) -> ConfusionMatrix:
    """Return the confusion of the truth and the likeliest classes."""
    labels = predictions.logits.argmax(axis=1)
    return confusion_of_indices(predictions.truth, labels, predictions.classes)


def confidences(logits: npt.NDArray[np.float32]) -> Floats:
    """Return the softmax probability (N,) of each image's likeliest class."""
    exact = logits.astype(np.float64)
    shifted = np.exp(exact - exact.max(axis=1, keepdims=True))
    return np.asarray(1.0 / shifted.sum(axis=1))


def calibrate(predictions: ValidationPredictions) -> Calibration:
    """Return the reliability bins and the expected calibration error.

    sum over bins of (images / N) |accuracy - confidence| (Guo et al., "On calibration of modern
    neural networks", ICML 2017).
    """
    sure = confidences(predictions.logits)
    right = predictions.logits.argmax(axis=1) == predictions.truth
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    images = np.bincount(place, minlength=BINS)
    whole = np.where(images > 0, images, np.nan)
    confidence = np.bincount(place, sure, BINS) / whole
    accuracy = np.bincount(place, right, BINS) / whole
    gaps = np.nan_to_num(np.abs(accuracy - confidence))
    return Calibration(images, confidence, accuracy, float((gaps * images).sum() / images.sum()))


def worst_mistakes(predictions: ValidationPredictions, many: int) -> list[Mistake]:
    """Return the `many` wrong labels that the network was surest of, ties in name order."""
    sure, names, classes = confidences(predictions.logits), predictions.names, predictions.classes
    predicted = predictions.logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != predictions.truth).tolist()
    wrong.sort(key=lambda k: (-sure[k], names[k]))
    return [
        Mistake(names[k], classes[predictions.truth[k]], classes[predicted[k]], float(sure[k]))
        for k in wrong[:many]
    ]


def weakest_first(table: ConfusionMatrix) -> list[ClassRow]:
    """Return the classes that occur in order of their F1, ties in name order."""
    occurring = (row for row in table.rows() if row.f1 == row.f1)
    return sorted(occurring, key=lambda row: (row.f1, row.name))


def confused_pairs(table: ConfusionMatrix, many: int) -> list[tuple[str, str, int, float]]:
    """Return the `many` commonest mistakes: true class, label, images, share of the true class."""
    wrong = table.counts * (1 - np.eye(len(table.classes), dtype=np.int64))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:many]
    images = table.counts.sum(axis=1)
    return [
        (table.classes[true], table.classes[label], int(wrong[true, label]), float(share))
        for true, label in zip(*np.unravel_index(worst, wrong.shape), strict=True)
        if (share := wrong[true, label] / max(1, images[true]))
    ]


def metrics(results: Results) -> dict[str, Any]:
    """Return what metrics.json holds."""
    cost = results.data.cost
    values: dict[str, Any] = {"macs": cost.macs, "parameters": cost.parameters}
    values |= {"size": cost.bytes, "peak_memory": cost.memory}
    for split, found in results.evaluations.items():
        prefix = "" if split == "validation" else f"{split}_"
        exact = {
            "f1": found.table.f1,
            "f1_low": found.risk.low,
            "f1_high": found.risk.high,
            "f1_under_floor": found.risk.under_floor,
            "accuracy": found.table.accuracy,
            "score": found.score.value,
            "score_low": found.score_low,
            "score_high": found.score_high,
        }
        values |= {prefix + name: round(value, DIGITS) for name, value in exact.items()}
    if results.calibration:
        values["calibration_error"] = round(results.calibration.error, DIGITS)
    if results.robustness:
        f1s = results.robustness.f1
        values["robustness"] = {kind: round(f1, DIGITS) for kind, f1 in f1s.items()}
    return values
