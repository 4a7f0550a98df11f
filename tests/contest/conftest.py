"""A secret test folder with its truth, and models that are right about a part of it."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.small_models import CLASSES, COLOURS, make_model

COUNT = 90


@pytest.fixture(scope="session")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `test` of 90 plain pictures and their truth.csv."""
    folder = tmp_path_factory.mktemp("secret")
    (folder / "test").mkdir()
    with (folder / "truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("filename", "class"))
        for number in range(COUNT):
            name = CLASSES[number % 3]
            # the darker a picture, the sooner a model with a threshold errs
            shade = tuple(value * (30 + 2 * number) // 255 for value in COLOURS[name])
            Image.new("RGB", (8, 8), shade).save(folder / f"test/{number:03}.png")
            rows.writerow((f"{number:03}.png", name))
    return folder


def model_bytes(bias: float = 0.0, extra: int = 0, **parts: Any) -> bytes:
    """Return a model that says "red" where no color is stronger than `bias`.

    `extra` 1 x 1 convolutions before it cost MACs and change nothing.
    """
    from onnx import helper

    weights: dict[str, Any] = {"b": np.array([0, 0, bias])}
    before, last = [], "images"
    for number in range(extra):
        name = "x" if number == extra - 1 else f"x{number}"
        weights[f"k{number}"] = np.eye(3).reshape(3, 3, 1, 1)
        before.append(helper.make_node("Conv", [last, f"k{number}"], [name], name=f"conv{number}"))
        last = name
    made = make_model(**{"before": before or None, "weights": weights, **parts})
    return bytes(made.SerializeToString())
