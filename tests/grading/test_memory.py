"""The peak of the activations, byte by byte, in the best order of the operators."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.small_models import make_model

from weighin.grading import recount
from weighin.grading.model import open_model
from weighin.grading.recount import peak_memory

IMAGE = 3 * 8 * 8


def peak(path: Path, before: list[Any], weights: dict[str, Any]) -> int:
    onnx.save(make_model(before=before, weights=weights), path)
    return peak_memory(open_model(path).graph)


def conv(source: str, target: str, weight: str, **attributes: Any) -> Any:
    return helper.make_node("Conv", [source, weight], [target], target, **attributes)


def test_a_chain_needs_an_operators_inputs_and_outputs(tmp_path: Path) -> None:
    """8 x 8 x 3 to 10 channels, which a Relu changes in place, to 3."""
    nodes = [conv("images", "a", "wide"), helper.make_node("Relu", ["a"], ["r"], "r")]
    nodes.append(conv("r", "x", "narrow"))
    weights = {"wide": np.ones((10, 3, 1, 1)), "narrow": np.ones((3, 10, 1, 1))}
    assert peak(tmp_path / "m.onnx", nodes, weights) == 4 * (IMAGE + 10 * 64)


def test_what_is_read_again_stays(tmp_path: Path) -> None:
    nodes = [conv("images", "a", "wide"), conv("a", "second", "narrow")]
    nodes.append(helper.make_node("Add", ["second", "images"], ["x"], "x"))
    weights = {"wide": np.ones((10, 3, 1, 1)), "narrow": np.ones((3, 10, 1, 1))}
    assert peak(tmp_path / "m.onnx", nodes, weights) == 4 * (IMAGE + 10 * 64 + IMAGE)


def branches(order: list[int]) -> tuple[list[Any], dict[str, Any]]:
    """Two branches that are wide inside and one number a channel at their ends."""
    flat = [
        *(conv("images", "a", "wide"), helper.make_node("GlobalMaxPool", ["a"], ["ap"], "ap")),
        *(conv("images", "c", "wide"), helper.make_node("GlobalMaxPool", ["c"], ["cp"], "cp")),
    ]
    last = [helper.make_node("Add", ["ap", "cp"], ["s"], "s"), conv("s", "x", "narrow")]
    weights = {"wide": np.ones((10, 3, 1, 1)), "narrow": np.ones((3, 10, 1, 1))}
    return [*(flat[k] for k in order), *last], weights


def test_the_order_is_the_best_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = 4 * (IMAGE + 640 + 10)  # one branch's end is there while the other is wide
    for number, order in enumerate(([0, 1, 2, 3], [0, 2, 1, 3])):
        assert peak(tmp_path / f"{number}.onnx", *branches(order)) == best
    monkeypatch.setattr(recount, "MOST_WORK", 0)
    assert peak(tmp_path / "0.onnx", *branches([0, 1, 2, 3])) == best
    assert peak(tmp_path / "1.onnx", *branches([0, 2, 1, 3])) == 4 * (IMAGE + 2 * 640)


def test_eight_bits_are_a_quarter(tmp_path: Path) -> None:
    def quantized(name: str) -> list[Any]:
        return [
            helper.make_node("QuantizeLinear", [name, "scale"], [f"{name}q"], f"{name}q"),
            helper.make_node("DequantizeLinear", [f"{name}q", "scale"], [f"{name}d"], f"{name}d"),
        ]

    nodes = [*quantized("images"), conv("imagesd", "a", "wide"), *quantized("a")]
    nodes.append(conv("ad", "c", "narrow"))
    nodes += [*quantized("c"), helper.make_node("Identity", ["cd"], ["x"], "x")]
    weights = {"wide": np.ones((10, 3, 1, 1)), "narrow": np.ones((3, 10, 1, 1)), "scale": 0.1}
    assert peak(tmp_path / "m.onnx", nodes, weights) == IMAGE + 10 * 64
