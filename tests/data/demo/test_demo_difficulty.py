"""The default data set is neither trivial nor hopeless: what a linear model and a network reach."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from weighin.data.demo import draw_demo

SIDE = 32

Examples = tuple[npt.NDArray[np.float64], list[str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo") / "data"
    draw_demo(folder, workers=2)
    return folder


def examples(folder: Path, table: Path) -> Examples:
    with table.open(newline="") as file:
        rows = [(folder / row["filename"], row["class"]) for row in csv.DictReader(file)]
    return np.stack([pixels(path) for path, _ in rows]), [label for _, label in rows]


def pixels(path: Path) -> npt.NDArray[np.float64]:
    with Image.open(path) as image:
        small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small).ravel() / 255


@pytest.mark.slow
def test_pixels_alone_do_not_tell_the_classes_apart(data):
    inputs, labels = examples(data / "train", data / "train.csv")
    test_inputs, truth = examples(data / "test", data / "test_truth.csv")
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    predicted = model.fit(inputs, labels).predict(test_inputs)
    f1 = f1_score(truth, predicted, average="macro")
    assert 0.2 < f1 < 0.65  # 0.11 is chance
