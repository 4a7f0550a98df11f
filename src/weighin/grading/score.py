"""Macro F1 from truth and predictions, and a contest's score from a model's figures.

K is the number of classes, N of images. Classes are those that occur in the truth or in the
predictions: a class that neither holds takes no part in the mean, and one that is predicted but
never true counts as an F1 of 0. It is scikit-learn's `f1_score(average="macro",
zero_division=0)`, against which the tests check it.

The contests' formulas have names; each gives one number, lower is better.

`contest.score` may also name a Python file of one's own with a function `score`:

    def score(contest, metrics):
        "Parameters in millions, and the error rate."  # what the report says of it
        return {"size": metrics.parameters / 1e6, "error": 1 - metrics.accuracy}

The file holds all that it needs: beside installed packages it imports nothing and reads no file.
`contest` holds the values of that section of params.yaml, `metrics` is a `Metrics`; what is
returned are the named terms that add up to the score, or the score itself. Lower is better.

Above `max_memory`, `max_bytes` or `max_params` a model is out of every contest that sets them:
`OUT_OF_CONTEST` is added to its score, whatever the formula.
"""

import importlib.util
import math
import site
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.errors import ParamsError
from weighin.params import Contest

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
    return confusion_of_indices(true, pred, classes)


def confusion_of_indices(
    truth: Counts, predicted: Counts, classes: Sequence[str]
) -> ConfusionMatrix:
    """Return the confusion of two arrays (N,) of indices into `classes`."""
    size = len(classes)
    counts = np.bincount(truth * size + predicted, minlength=size * size)
    return ConfusionMatrix(tuple(classes), counts.reshape(size, size).astype(np.int64))


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


def _share(part: Counts, whole: Counts) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0)


OUT_OF_CONTEST = 1000.0  # added when a hard rule is broken: more than any entry that keeps them

WASTE = Contest(
    score="waste",
    max_macs=20_000_000,
    reference_macs=13_865_375,
    reference_params=4_214_841,
    reference_f1=0.83656,
    floor_f1=0.5,
)


@dataclass(frozen=True)
class Cost:
    """What a model costs, by the counts of its exported graph; 0 where it was not counted.

    `memory` is what the activations of one image need at once, `bytes` the size of the file.
    `parameter_bits` is the width of all parameters together, `multiply_bits` the sum over all MACs
    of the width of the wider factor: 32 for each float.
    """

    macs: int
    parameters: int
    memory: int = 0
    bytes: int = 0
    parameter_bits: int = 0
    multiply_bits: int = 0


@dataclass(frozen=True)
class Quality:
    """How well a model labels: shares from 0 to 1."""

    f1: float
    accuracy: float


@dataclass(frozen=True)
class Metrics(Cost, Quality):
    """What a model is scored on: the fields of `Quality`, then those of `Cost`."""

    @classmethod
    def of(cls, f1: float, accuracy: float, cost: Cost) -> "Metrics":
        """Return the metrics of a model of these costs."""
        return cls(f1, accuracy, **vars(cost))


@dataclass(frozen=True)
class Score:
    """A contest's number and the terms that add up to it."""

    value: float
    parts: dict[str, float]


def waste(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return the waste-sorting contest's terms.

    macs / reference_macs + f1 term, which is 1 under the floor, 1 - f1 / reference_f1 above it,
    and half of that (negative) past the reference. Constants and four published rows that the
    formula meets to four digits: LEADERBOARD in tests/grading/test_score.py.
    """
    quality = 1 - metrics.f1 / contest.reference_f1
    if metrics.f1 < contest.floor_f1:
        quality = 1.0
    elif metrics.f1 >= contest.reference_f1:
        quality *= 0.5
    return {"macs": metrics.macs / contest.reference_macs, "f1": quality}


def f1(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return 1 - macro F1: a contest of quality alone."""
    return {"f1": 1 - metrics.f1}


def accuracy(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return the error rate of a model within `max_macs`; above it the model is out.

    The form of the Visual Wake Words challenge (Chowdhery et al., 2019, arXiv:1906.05721): the
    highest accuracy under a ceiling on multiply-adds.
    """
    over = OUT_OF_CONTEST if metrics.macs > contest.max_macs else 0.0
    return {"error": 1 - metrics.accuracy, "over_budget": over}


def micronet(contest: Contest, metrics: Metrics) -> dict[str, float]:
    """Return storage and operations, each over a reference network's, once good enough.

    The MicroNet challenge (Gale et al., NeurIPS 2019 competition track), by its rules
    (micronet-challenge.github.io/scoring_and_submission) and its counting script (google-research,
    micronet_challenge/counting.py), for models that reach a required quality (there top-1 accuracy,
    here `floor_f1`). A parameter of b bits is b / 32 of one. A MAC is two operations: a product,
    which is b / 32 of one where b is the width of its wider factor, and an addition at the width of
    the accumulator, which is 32 bits for float32 and for int8 alike. The reference network is
    float32. Numbers count as they are stored: the 16 bits that the challenge gave to networks that
    were not quantized are not given here.
    """
    under = OUT_OF_CONTEST if metrics.f1 < contest.floor_f1 else 0.0
    storage = metrics.parameter_bits / 32 or metrics.parameters
    products = metrics.multiply_bits / 32 or metrics.macs
    return {
        "parameters": storage / contest.reference_params,
        "operations": (products + metrics.macs) / (2 * contest.reference_macs),
        "under_floor": under,
    }


Formula = Callable[[Contest, Metrics], dict[str, float]]
FORMULAS: dict[str, Formula] = {
    "waste": waste,
    "f1": f1,
    "accuracy": accuracy,
    "micronet": micronet,
}


def score(contest: Contest, metrics: Metrics) -> Score:
    """Return the contest's score of a model and its terms, whose sum it is.

    Raises:
        ParamsError: a score of one's own cannot be loaded, fails, or returns no number.
    """
    if contest.score in FORMULAS:
        parts = FORMULAS[contest.score](contest, metrics)
    else:
        parts = _own_parts(contest, metrics)
    if any(name != "max_macs" for name in over_limits(contest, metrics)):
        parts = {**parts, "over_limit": OUT_OF_CONTEST}
    return Score(value=sum(parts.values()), parts=parts)


LIMITS = {  # a limit of `contest`: the field of `Cost` that it bounds, and its unit
    "max_macs": ("macs", "MACs"),
    "max_params": ("parameters", "parameters"),
    "max_memory": ("memory", "bytes of activations"),
    "max_bytes": ("bytes", "bytes of file"),
}


def over_limits(contest: Contest, cost: Cost) -> dict[str, str]:
    """Return {limit: what is over it, in words} of the limits that a model does not keep."""
    found = {}
    for name, (field, unit) in LIMITS.items():
        limit, value = getattr(contest, name), getattr(cost, field)
        if limit is not None and value > limit:
            found[name] = f"{value:,} {unit}, contest.{name} is {limit:,}"
    return found


def needs_file(contest: Contest, quantized: bool) -> bool:
    """Whether a contest asks for costs that only an exported graph has.

    Those of a network that will be `quantized` are of that graph: its scales are parameters.
    """
    asked = contest.max_memory or contest.max_bytes or (contest.max_params and quantized)
    return bool(asked or is_own(contest.score) or (contest.score == "micronet" and quantized))


def is_own(name: str) -> bool:
    """Whether a score's name is that of a Python file."""
    return name not in FORMULAS


@cache
def own_formula(path: str) -> Callable[[Contest, Metrics], Any]:
    """Return the function `score` of a Python file, which is run for it.

    Raises:
        ParamsError: there is no such file or function, or the file fails.
    """
    name, fix = "weighin_own_score", f"edit {path}; weighin/grading/score.py shows what goes in it"
    if not Path(path).is_file():
        raise ParamsError(f"contest.score is {path}, which is not here", f"write {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ParamsError(f"contest.score is {path}, which is no Python file", fix)
    module, before = importlib.util.module_from_spec(spec), set(sys.modules)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ParamsError(f"{path} fails: {type(error).__name__}: {error}", fix) from error
    for other in sorted(sys.modules.keys() - before):
        if file := _own_file(other):
            del sys.modules[other]  # or the next call would take it for one of ours
            problem = f"{path} imports {file}, of which no stage knows when it changes"
            raise ParamsError(problem, f"write what it needs of {file} into {path}")
    formula: Callable[[Contest, Metrics], Any] | None = getattr(module, "score", None)
    if not callable(formula):
        raise ParamsError(f"{path} has no function `score`", fix)
    return formula


def _own_file(name: str) -> str | None:
    """Return the file of a loaded module that is neither installed nor this package's."""
    file = getattr(sys.modules[name], "__file__", None)
    installed = (sys.prefix, sys.base_prefix, site.getusersitepackages())
    known = (*installed, Path(__file__).parents[1])
    if not file or not Path(file).is_absolute():
        return None
    return None if any(Path(file).is_relative_to(place) for place in known) else str(file)


def _own_parts(contest: Contest, metrics: Metrics) -> dict[str, float]:
    path = contest.score
    fix = f"edit {path}: `score` returns a number, or {{name: number}} whose sum is the score"
    try:
        found = own_formula(path)(contest, metrics)
    except ParamsError:
        raise
    except Exception as error:
        problem = f"{path}: score({metrics}) fails: {type(error).__name__}: {error}"
        raise ParamsError(problem, fix) from error
    parts = found if isinstance(found, dict) else {"score": found}
    if not all(isinstance(p, int | float) and math.isfinite(p) for p in parts.values()):
        raise ParamsError(f"{path}: score({metrics}) returns {found}", fix)
    return {str(name): float(part) for name, part in parts.items()}


def has_floor(contest: Contest) -> bool:
    """Whether the contest's score depends on `floor_f1`."""
    metrics = Metrics(0.5, 0.5, 1, 1)
    above, below = (replace(contest, floor_f1=floor) for floor in (0.0, 1.0))
    return score(above, metrics).value != score(below, metrics).value
