"""Quantized graphs: a quantized MAC is a MAC, weights count, and products hide nowhere."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.small_models import make_model

from weighin.errors import HiddenWorkError, ModelError
from weighin.grading.model import open_model
from weighin.grading.recount import count_file
from weighin.grading.runtime import Runner

Arrays = dict[str, Any]
WEIGHTS: Arrays = {
    "scale": np.float32(1 / 32),
    "zero": np.uint8(128),
    "wq": np.random.default_rng(0).integers(-64, 65, (3, 3, 3, 3)).astype(np.int8),
    "ws": np.linspace(0.01, 0.02, 3).astype(np.float32),
    "wz": np.zeros(3, np.int8),
    "w": np.eye(3, dtype=np.float32),
}


def quantize(name: str, scale: str = "scale") -> list[Any]:
    """Return operators that give `<name>8` the 8 bits of a tensor."""
    return [
        helper.make_node("QuantizeLinear", [name, scale, "zero"], [f"{name}q"], f"{name} q"),
        helper.make_node(
            "DequantizeLinear", [f"{name}q", scale, "zero"], [f"{name}8"], f"{name} d"
        ),
    ]


WEIGHT = helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["conv.w"], "weight", axis=0)


def save(path: Path, before: list[Any], changes: Arrays | None = None) -> Path:
    """Write a model of these operators before the head."""
    model = make_model(before=before)
    kept = [tensor for tensor in model.graph.initializer if tensor.name == "b"]
    del model.graph.initializer[:]
    arrays = WEIGHTS | (changes or {})
    model.graph.initializer.extend(
        [*kept, *(numpy_helper.from_array(np.asarray(v), name) for name, v in arrays.items())]
    )
    onnx.save(model, path)
    return path


def ordinary(*between: Any, source: str = "images8") -> list[Any]:
    conv = helper.make_node("Conv", [source, "conv.w"], ["c"], "conv")
    last = helper.make_node("Identity", ["c8"], ["x"], "last")
    return [*quantize("images"), WEIGHT, *between, conv, *quantize("c"), last]


def test_macs_and_parameters_are_exact(tmp_path: Path) -> None:
    found = count_file(save(tmp_path / "model.onnx", ordinary()))
    conv, pool, head = 3 * 3 * 9 * 36, 3 * 36, 3 * 3 + 3
    assert found.macs == conv + pool + head
    # weights, their scales by channel, the head's weights and bias; no zero points
    assert found.parameters == 3 * 3 * 9 + 3 + 9 + 3
    bits = {layer.name: layer.bits for layer in found.layers}
    assert (bits["conv"], bits["head"]) == (8, 32)


def test_a_float_factor_makes_a_float_product(tmp_path: Path) -> None:
    """Whatever is beside it: an operator with one factor of 32 bits multiplies 32 bits."""
    names = ordinary(source="images")
    found = count_file(save(tmp_path / "model.onnx", names))
    assert {layer.name: layer.bits for layer in found.layers}["conv"] == 32
    wide = helper.make_node("Identity", ["conv.float"], ["conv.w"], "wide")
    nodes = [wide if node.name == "weight" else node for node in ordinary()]
    changes = {"conv.float": np.ones((3, 3, 3, 3), np.float32)}
    found = count_file(save(tmp_path / "other.onnx", nodes, changes))
    assert {layer.name: layer.bits for layer in found.layers}["conv"] == 32


def test_the_graph_that_is_counted_runs(tmp_path: Path) -> None:
    model = open_model(save(tmp_path / "model.onnx", ordinary()))
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    runner = Runner(model)
    runner.check(pixels)
    logits = runner.logits(pixels)
    assert logits.shape == (5, 3) and len({row.tobytes() for row in logits}) == 5


@pytest.mark.parametrize(
    ("nodes", "changes", "culprit", "why"),
    [
        (ordinary(), {"scale": np.full(3, 0.1, np.float32), "zero": np.full(3, 128, np.uint8)},
         "images q", "differs along the tensor"),
        ([*quantize("images"), helper.make_node("Relu", ["imagesq"], ["x"], "eight")], {},
         "eight", ""),
        ([helper.make_node("GlobalMaxPool", ["images"], ["m"], "m"),
          helper.make_node("ReduceMax", ["m"], ["live"], "live", axes=[1, 2, 3], keepdims=0),
          *quantize("images", "live"), helper.make_node("Identity", ["images8"], ["x"], "i")], {},
         "images q", ""),
        ([helper.make_node("ReduceMax", ["images"], ["live"], "live", axes=[1, 2, 3], keepdims=0),
          helper.make_node("DequantizeLinear", ["wq", "live"], ["conv.w"], "weight", axis=0),
          helper.make_node("Conv", ["images", "conv.w"], ["x"], "conv")], {}, "weight", ""),
    ],
    ids=["scale by channel", "8 bits elsewhere", "live scale", "live scale of a weight"],
)  # fmt: skip
def test_products_of_scales_are_refused_by_name(
    tmp_path: Path, nodes: list[Any], changes: Arrays, culprit: str, why: str
) -> None:
    with pytest.raises(ModelError) as error:
        open_model(save(tmp_path / "model.onnx", nodes, changes))
    assert culprit in error.value.problem
    assert why in error.value.problem


@pytest.mark.parametrize("scale", [0.0, -0.1, np.inf, np.nan])
def test_a_scale_that_stands_for_nothing_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(ModelError) as error:
        open_model(save(tmp_path / "model.onnx", ordinary(), {"scale": np.float32(scale)}))
    assert "images q" in error.value.problem and "no number above 0" in error.value.problem


def test_a_float_operator_between_makes_float_products(tmp_path: Path) -> None:
    """A rounding that something else follows lends its 8 bits to nobody."""
    between = helper.make_node("HardSwish", ["images8"], ["h"], "between")
    found = count_file(save(tmp_path / "model.onnx", ordinary(between, source="h")))
    plain = count_file(save(tmp_path / "plain.onnx", ordinary()))
    assert {layer.name: layer.bits for layer in found.layers}["conv"] == 32
    assert found.unpriced == plain.unpriced + 3 * 8 * 8 and found.macs == plain.macs


def test_float_work_between_is_counted_and_limited(tmp_path: Path) -> None:
    """Elementwise products between two 8-bit tensors are work that the rule does not see."""
    many = []
    for step in range(200):
        source = "images8" if step == 0 else f"m{step - 1}"
        many.append(helper.make_node("Mul", [source, "factor"], [f"m{step}"], f"mul {step}"))
    nodes = [*quantize("images"), WEIGHT, *many, *quantize("m199")]
    nodes += [helper.make_node("Conv", ["m1998", "conv.w"], ["x"], "conv")]
    factor = {"factor": np.full((3, 1, 1), 1.01, np.float32)}
    with pytest.raises(HiddenWorkError) as error:
        count_file(save(tmp_path / "model.onnx", nodes, factor))
    assert "the rule does not see" in error.value.problem
