"""What the report is made from: the other stages' outputs, found, read and checked.

Only prepare's folder and the submission must exist. A stage that was switched off leaves nothing
behind, and the report then leaves its section out.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from weighin.data.pack import read_table
from weighin.errors import DataError
from weighin.grading.f1 import Confusion
from weighin.grading.labels import compared, read_truth
from weighin.grading.model import Model, open_model
from weighin.grading.recount import Count, counted
from weighin.label_csv import read_labels
from weighin.report.trials import (
    Data,
    Layer,
    Trials,
    read_choice,
    read_classes,
    read_data,
    read_history,
    read_layers,
    read_recipe,
    read_trials,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """The paths that the report reads, relative to the project's folder."""

    prepare: Path = Path("work/prepare")
    search: Path = Path("work/search")
    tune: Path = Path("work/tune")
    train: Path = Path("work/train")
    decompose: Path = Path("work/decompose")
    finetune: Path = Path("work/finetune")
    model: Path = Path("submission/model.onnx")
    submission: Path = Path("submission/submission.csv")
    images: Path = Path("data/train")
    truth: Path = Path("data/test_truth.csv")
    data_record: Path = Path("data.dvc")
    lock: Path = Path("requirements.lock")
    stages: Path = Path("stages")

    def folders(self) -> dict[str, Path]:
        """Return {stage: its folder}, in the order of the pipeline."""
        names = ("prepare", "search", "tune", "train", "decompose", "finetune")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Answers:
    """The finished network's logits (N, K) on the validation split, and the truth (N,)."""

    classes: tuple[str, ...]
    names: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Facts:
    """All that the report tells, before anything is computed from it."""

    classes: tuple[str, ...]
    data: Data
    pictures: tuple[tuple[str, Path], ...]  # (title, contact sheet)
    model: Model
    count: Count
    labelled: int
    search: Trials | None = None
    tune: Trials | None = None
    recipe: dict[str, Any] | None = None
    network: str | None = None  # the rows of what is exported
    choice: str | None = None  # why that was exported
    histories: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    validation: Answers | None = None
    test: Confusion | None = None


def read(inputs: Inputs) -> Facts:
    """Return the facts that the stages left.

    Raises:
        DataError: a file is missing or is not what its stage writes; names the file and the
            `dvc repro` that makes it.
        ModelError, HiddenWorkError: the model cannot be graded.
    """
    classes = _json(inputs.prepare / "classes.json", "prepare", read_classes)
    data = _json(inputs.prepare / "report.json", "prepare", read_data)
    _need(inputs.prepare / "images.csv", "prepare")
    _need(inputs.model, "finetune")
    _need(inputs.submission, "infer")
    model = _model(inputs, classes)
    labels = read_labels(inputs.submission).by_name(needed=False)
    return Facts(
        classes=classes,
        data=data,
        pictures=_pictures(inputs.prepare / "pictures", classes),
        model=model,
        count=counted(model, inputs.model),
        labelled=len(labels),
        search=_if_there(inputs.search / "trials.json", "search", read_trials),
        tune=_if_there(inputs.tune / "trials.json", "tune", read_trials),
        recipe=_if_there(inputs.tune / "recipe.json", "tune", read_recipe),
        network=_network(inputs),
        choice=_if_there(inputs.finetune / "choice.json", "finetune", read_choice),
        histories=_histories(inputs),
        layers=_if_there(inputs.decompose / "layers.json", "decompose", read_layers) or (),
        validation=_answers(inputs, classes),
        test=_test(inputs, classes, labels),
    )


def _need(path: Path, stage: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} does not exist", f"run `dvc repro {stage}`")


def _model(inputs: Inputs, classes: tuple[str, ...]) -> Model:
    model = open_model(inputs.model)
    if model.classes != classes:
        problem = f"{inputs.model} and {inputs.prepare / 'classes.json'} name different classes"
        raise DataError(problem, "run `dvc repro finetune`")
    return model


def _json(path: Path, stage: str, parse: Callable[[Any], T]) -> T:
    _need(path, stage)
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is not what {stage} writes: {_fault(error)}",
            f"run `dvc repro --force {stage}`",
        ) from None


def _fault(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _if_there(path: Path, stage: str, parse: Callable[[Any], T]) -> T | None:
    return _json(path, stage, parse) if path.exists() else None


def _pictures(folder: Path, classes: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    sheets = [(name, folder / f"{name}.jpg") for name in classes]
    sheets.append(("Suspicious pairs", folder / "-pairs.jpg"))
    return tuple((title, path) for title, path in sheets if path.is_file())


def _network(inputs: Inputs) -> str | None:
    for folder in (inputs.finetune, inputs.decompose, inputs.search):
        if (folder / "network.yaml").is_file():
            return (folder / "network.yaml").read_text(encoding="utf-8")
    return None


def _histories(inputs: Inputs) -> dict[str, list[dict[str, float]]]:
    found = {}
    for stage, folder in (("train", inputs.train), ("finetune", inputs.finetune)):
        history = _if_there(folder / "history.json", stage, read_history)
        if history:
            found[stage] = history
    return found


def _answers(inputs: Inputs, classes: tuple[str, ...]) -> Answers | None:
    path = inputs.finetune / "validation_logits.npy"
    if not path.exists():
        return None
    names, truth = _validation(inputs, classes)
    if not names:
        return None
    fix = "run `dvc repro --force finetune`"
    try:
        logits = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a NumPy file: {error}", fix) from None
    if logits.shape != (len(names), len(classes)):
        wanted = f"{len(names)} validation images of {len(classes)} classes"
        raise DataError(f"{path} holds {logits.shape} numbers, the data {wanted}", fix)
    if not np.isfinite(logits).all():
        raise DataError(f"{path} holds numbers that are not finite", fix)
    return Answers(classes, names, truth, logits)


def _validation(
    inputs: Inputs, classes: tuple[str, ...]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    index = {name: place for place, name in enumerate(classes)}
    try:
        rows = [row for row in read_table(inputs.prepare) if row["split"] == "validation"]
        truth = np.array([index[row["class"]] for row in rows], np.int64)
        return tuple(row["name"] for row in rows), truth
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        path = inputs.prepare / "images.csv"
        raise DataError(
            f"{path} is not what prepare writes: {_fault(error)}",
            "run `dvc repro --force prepare`",
        ) from None


def _test(inputs: Inputs, classes: tuple[str, ...], labels: dict[str, str]) -> Confusion | None:
    if not inputs.truth.exists():
        return None
    fix = "run `dvc repro infer`, or fix the truth; filenames are paths below data/test"
    return compared(labels, read_truth(inputs.truth, labels, classes, str(inputs.submission), fix))
