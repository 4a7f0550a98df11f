"""The default data set is neither trivial nor hopeless: what a linear model and a network reach."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from weighin.data.demo import class_counts, draw_demo
from weighin.data.prepare import prepare
from weighin.images import Pixels, Size
from weighin.network.build import build
from weighin.network.cost import count_macs
from weighin.network.spec import read_spec, shipped
from weighin.params import load
from weighin.training.process_group import ProcessGroup
from weighin.training.train import train_job
from weighin.training.trainer import Job, predict_logits
from weighin.training.weights import load_weights
from weighin.validation import with_values

ROOT = Path(__file__).parents[3]
SIDE = 32
EPOCHS = 110
RECIPE = {
    "shards": 2,
    "shard_size": 16,
    "lr": 0.15,
    "schedule": "one-cycle",
    "warmup": 0.2,
    "weight_decay": 0.0005,
    "loss.smoothing": 0.05,
    "augment.crop": 0.85,
    "augment.color": 0.1,
}

Examples = tuple[npt.NDArray[np.float64], list[str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo") / "data"
    draw_demo(folder, workers=2)
    return folder


def rows_of(table: Path) -> list[tuple[str, str]]:
    with table.open(newline="") as file:
        return [(row["filename"], row["class"]) for row in csv.DictReader(file)]


def examples(folder: Path, table: Path) -> Examples:
    rows = rows_of(table)
    return np.stack([pixels(folder / name) for name, _ in rows]), [label for _, label in rows]


def pixels(path: Path) -> npt.NDArray[np.float64]:
    with Image.open(path) as image:
        small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small).ravel() / 255


@pytest.mark.demo
def test_pixels_alone_do_not_tell_the_classes_apart(data):
    inputs, labels = examples(data / "train", data / "train.csv")
    test_inputs, truth = examples(data / "test", data / "test_truth.csv")
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    predicted = model.fit(inputs, labels).predict(test_inputs)
    f1 = f1_score(truth, predicted, average="macro")
    assert 0.2 < f1 < 0.65  # 0.11 is chance


@pytest.mark.demo
@pytest.mark.timeout(3600)
def test_a_network_of_a_million_and_a_half_macs_tells_them_apart(data, tmp_path):
    """Some 250 seconds of one core; the images that it is judged on are the test's."""
    params, spec = load(ROOT / "params.yaml"), read_spec(shipped("small"))
    module = build(spec, 9)
    assert count_macs(module, spec.input) < 1_500_000
    recipe = with_values(params.recipe, RECIPE)
    pack = tmp_path / "pack"
    prepare(data, pack, replace(params.prepare, sizes=(spec.input,)), 0, workers=2)
    job = Job(spec, recipe, EPOCHS, pack, (0, "train"), all_data=True)
    load_weights(module, train_job("train", job, 2, tmp_path).weights)
    rows = rows_of(data / "test_truth.csv")
    images = np.stack([fitted(data / "test" / name, spec.input) for name, _ in rows])
    classes = np.array(sorted(class_counts(1500)))
    predicted = classes[predict_logits(module, images, ProcessGroup()).argmax(1)]
    assert f1_score([label for _, label in rows], predicted, average="macro") > 0.85


def fitted(path: Path, size: Size) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
