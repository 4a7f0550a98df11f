"""What the report is made from: the other stages' outputs, found, read and checked.

Only prepare's folder and the submission must exist. A stage that was switched off leaves nothing
behind, and the report then leaves its section out. N validation images, K classes.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from weighin.data.listing import copies
from weighin.data.pack import read_table
from weighin.errors import DataError
from weighin.grading.grade import Truth, compared, read_truth
from weighin.grading.model import Model, open_model
from weighin.grading.recount import counted, file_cost
from weighin.grading.score import ConfusionMatrix, Cost
from weighin.label_csv import read_labels
from weighin.search.trials import StudyRecord, read_trials

T = TypeVar("T")
PAIRS = "-pairs.jpg"  # the contact sheet of pairs of images that look alike


@dataclass(frozen=True)
class Inputs:
    """The paths that the report reads, relative to the project's folder."""

    named_files: Path = Path("work/inputs")
    prepare: Path = Path("work/prepare")
    search: Path = Path("work/search")
    tune: Path = Path("work/tune")
    train: Path = Path("work/train")
    decompose: Path = Path("work/decompose")
    finetune: Path = Path("work/finetune")
    quantize: Path = Path("work/quantize")
    model: Path = Path("submission/model.onnx")
    submission: Path = Path("submission/submission.csv")
    images: Path = Path("data/train")
    truth: Path = Path("data/test_truth.csv")
    data_record: Path = Path("data.dvc")
    lock: Path = Path("requirements.lock")
    stages: Path = Path("stages")

    def folders(self) -> dict[str, Path]:
        """Return {stage: its folder}, in the order of the pipeline."""
        names = ("prepare", "search", "tune", "train", "decompose", "finetune", "quantize")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Splits:
    """Images by class of the two splits."""

    train: dict[str, int]
    validation: dict[str, int]


@dataclass(frozen=True)
class Fault:
    """A file with a fault, and what was done about it."""

    fault: str
    name: str
    done: str


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images that look almost alike, and those of them that have two classes."""

    pairs: int
    across_classes: int


@dataclass(frozen=True)
class DataReport:
    """prepare's report.json: images by split and class, faults, near duplicates."""

    files: int
    images: int
    imbalance: FiniteFloat
    splits: Splits
    fault_counts: dict[str, int]
    faults: tuple[Fault, ...]  # the first of each kind
    near_duplicates: NearDuplicates


@dataclass(frozen=True)
class Epoch:
    """An epoch of a training; F1 and accuracy are None where it was not validated."""

    epoch: int
    loss: FiniteFloat
    lr: FiniteFloat | None = None
    f1: FiniteFloat | None = None
    accuracy: FiniteFloat | None = None


@dataclass(frozen=True)
class Layer:
    """A convolution before and after its factorization; `method` is None where it was left."""

    path: str
    shape: tuple[int, ...]
    macs_before: int
    macs_after: int
    method: str | None = None
    ranks: tuple[int, ...] | None = None
    error: FiniteFloat | None = None  # of the weights, relative Frobenius norm
    sensitivity: FiniteFloat | None = None  # F1 lost by factorizing this layer alone


@dataclass(frozen=True)
class Choice:
    """finetune's choice.json: why this network was exported."""

    why: str


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer of the exported network, and whether it has 8 bits."""

    name: str
    divergence: FiniteFloat
    quantized: bool


@dataclass(frozen=True)
class Quantization:
    """quantize's quantization.json; without `enabled` the float network was passed on."""

    enabled: bool
    f1_before: FiniteFloat | None = None
    f1_after: FiniteFloat | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    layers: tuple[QuantizedLayer, ...] = ()


@dataclass(frozen=True)
class ValidationPredictions:
    """The finished network's logits (N, K) on the validation split, and the truth (N,)."""

    classes: tuple[str, ...]
    names: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReportData:
    """All that the report tells, before anything is computed from it."""

    classes: tuple[str, ...]
    dataset: DataReport
    sheets: tuple[tuple[str, Path], ...]  # (title, contact sheet)
    model: Model
    cost: Cost
    labelled: int  # files that submission.csv labels
    search: StudyRecord | None = None
    tune: StudyRecord | None = None
    recipe: dict[str, Any] | None = None
    network: str | None = None  # the rows of what is exported
    choice: Choice | None = None
    quantization: Quantization | None = None
    histories: dict[str, tuple[Epoch, ...]] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    test_copies: tuple[tuple[str, str], ...] = ()  # (test image, packed image of the same bytes)
    validation: ValidationPredictions | None = None
    test: ConfusionMatrix | None = None
    test_notes: tuple[str, ...] = ()  # how the truth was read, and what of it no label can equal


CLASSES = TypeAdapter(tuple[str, ...])
DATASET = TypeAdapter(DataReport)
RECIPE = TypeAdapter(dict[str, Any])
CHOICE = TypeAdapter(Choice)
QUANTIZATION = TypeAdapter(Quantization)
HISTORY = TypeAdapter(tuple[Epoch, ...])
LAYERS = TypeAdapter(tuple[Layer, ...])


def read(inputs: Inputs) -> ReportData:
    """Return the data that the stages left.

    Raises:
        DataError: a file is missing or is not what its stage writes; names the file and the
            `dvc repro` that makes it.
        ModelError, HiddenWorkError: the model cannot be graded.
    """
    classes = _read(inputs.prepare / "classes.json", CLASSES)
    dataset = _read(inputs.prepare / "report.json", DATASET)
    _need(inputs.prepare / "images.csv", "prepare")
    _need(inputs.model, "quantize")
    _need(inputs.submission, "infer")
    model = open_model(inputs.model)
    if model.classes != classes:
        problem = f"{inputs.model} and {inputs.prepare / 'classes.json'} name different classes"
        raise DataError(problem, "run `dvc repro finetune`")
    labels = read_labels(inputs.submission).by_name(needed=False)
    trainings = {"train": inputs.train, "finetune": inputs.finetune}
    histories = {
        stage: _read_optional(folder / "history.json", HISTORY)
        for stage, folder in trainings.items()
    }
    truth = _truth(inputs, classes, labels)
    return ReportData(
        classes=classes,
        dataset=dataset,
        sheets=_sheets(inputs.prepare / "pictures", classes),
        model=model,
        cost=file_cost(model.graph, counted(model, inputs.model), model.bytes),
        labelled=len(labels),
        search=_study(inputs.search),
        tune=_study(inputs.tune),
        recipe=_read_optional(inputs.tune / "recipe.json", RECIPE),
        network=_network(inputs),
        choice=_read_optional(inputs.finetune / "choice.json", CHOICE),
        quantization=_read_optional(inputs.quantize / "quantization.json", QUANTIZATION),
        histories={stage: history for stage, history in histories.items() if history},
        layers=_read_optional(inputs.decompose / "layers.json", LAYERS) or (),
        test_copies=test_copies(inputs.prepare, inputs.truth.with_name("test")),
        validation=_predictions(inputs, classes),
        test=None if truth is None else compared(labels, truth),
        test_notes=() if truth is None else truth.notes,
    )


def test_copies(prepare: Path, test: Path) -> tuple[tuple[str, str], ...]:
    """Return (test image, packed image) of the files below `test` that were packed byte for byte.

    Such an image was trained on, or chosen by.
    """
    if not test.is_dir():
        return ()
    known = {row["sha256"]: row["name"] for row in read_table(prepare)}
    return tuple(copies(test, known))


def _need(path: Path, stage: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} does not exist", f"run `dvc repro {stage}`")


def _read(path: Path, form: TypeAdapter[T]) -> T:
    """Return a stage's JSON file in its form; the file's folder is named after the stage."""
    stage = path.parent.name
    _need(path, stage)
    try:
        return form.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        fault = f"{where}: {first['msg']}" if where else first["msg"]
        problem = f"{path} is not what {stage} writes: {fault}"
        raise DataError(problem, f"run `dvc repro --force {stage}`") from None


def _read_optional(path: Path, form: TypeAdapter[T]) -> T | None:
    return _read(path, form) if path.exists() else None


def _study(folder: Path) -> StudyRecord | None:
    return read_trials(folder) if (folder / "trials.json").exists() else None


def _sheets(folder: Path, classes: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    sheets = [(name, folder / f"{name}.jpg") for name in classes]
    sheets.append(("Suspicious pairs", folder / PAIRS))
    return tuple((title, path) for title, path in sheets if path.is_file())


def _network(inputs: Inputs) -> str | None:
    for folder in (inputs.finetune, inputs.decompose, inputs.search):
        if (folder / "network.yaml").is_file():
            return (folder / "network.yaml").read_text(encoding="utf-8")
    return None


def _predictions(inputs: Inputs, classes: tuple[str, ...]) -> ValidationPredictions | None:
    # those of the file that is submitted: a float network is passed on by quantize as it is
    folders = [inputs.quantize, inputs.finetune]
    paths = [folder / "validation_logits.npy" for folder in folders]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None
    names, truth = _validation(inputs, classes)
    if not names:
        return None
    fix = f"run `dvc repro --force {path.parent.name}`"
    try:
        logits = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a NumPy file: {error}", fix) from None
    if logits.shape != (len(names), len(classes)):
        wanted = f"{len(names)} validation images of {len(classes)} classes"
        raise DataError(f"{path} holds {logits.shape} numbers, the data {wanted}", fix)
    if not np.isfinite(logits).all():
        raise DataError(f"{path} holds numbers that are not finite", fix)
    return ValidationPredictions(classes, names, truth, logits)


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
        fault = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path} is not what prepare writes: {fault}", "run `dvc repro --force prepare`"
        ) from None


def _truth(inputs: Inputs, classes: tuple[str, ...], labels: dict[str, str]) -> Truth | None:
    if not inputs.truth.exists():
        return None
    fix = "run `dvc repro infer`, or fix the truth; filenames are paths below data/test"
    return read_truth(inputs.truth, labels, classes, str(inputs.submission), fix)
