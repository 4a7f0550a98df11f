"""What rows cost, and the example of each block that `weighin blocks` prints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from weighin.errors import NetworkError
from weighin.grading.model import open_model
from weighin.grading.recount import cost as graded_cost
from weighin.grading.recount import peak_memory
from weighin.grading.score import WASTE
from weighin.network.blocks import BLOCKS
from weighin.network.build import build, check, initialize
from weighin.network.cost import BlockExample, block_examples, cost
from weighin.network.export import contest_cost, export_onnx, exported_cost, file_metadata
from weighin.network.quantized import quantized
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped
from weighin.params import load

EXAMPLES = {example.name: example for example in block_examples()}


def test_every_block_has_an_example_whose_row_is_one() -> None:
    assert list(EXAMPLES) == list(BLOCKS)
    for example in EXAMPLES.values():
        repeats, block, args = YAML(typ="safe").load(example.row)
        assert example.summary and (repeats, block) == (1, example.name)
        check(NetworkSpec((32, 32), 1.0, (Row(1, block, tuple(args)),)), 9)


@pytest.mark.parametrize(
    ("name", "arguments", "row", "macs"),
    [
        # 3 x 3 from 16 to 24 channels on 16 x 16, and its norm at 2 a number
        ("Conv", "[c, k=1, s=1, p=null, g=1, act=ReLU]", "[1, Conv, [24, 3, 2]]", 3504 * 256),
        # 1 x 1 to 12, 3 x 3 to 24
        (
            "Bottleneck",
            "[c, shortcut=true, g=1, t=0.5, act=ReLU]",
            "[1, Bottleneck, [24]]",
            (16 * 12 + 12 * 24 * 9 + 2 * 36) * 1024,
        ),
        ("Linear", "[c, act=null]", "[1, Linear, [24]]", 16 * 24 + 24),
        ("MaxPool", "[k, stride=null, p=0]", "[1, MaxPool, [3]]", 16 * 1024),
        ("Flatten", "[]", "[1, Flatten, []]", 0),
    ],
)
def test_examples(name: str, arguments: str, row: str, macs: int) -> None:
    summary = EXAMPLES[name].summary
    assert EXAMPLES[name] == BlockExample(name, summary, arguments, row, macs)


def test_the_cost_is_that_of_the_exported_network() -> None:
    """A 3 x 3 from 3 to 8 channels at stride 4 on 24 x 32, then 8 x 9 classes; norms are biases."""
    rows = (Row(1, "Conv", (8, 3, 4)), Row(1, "GlobalAvgPool"), Row(1, "Linear", ("classes",)))
    found = cost(NetworkSpec((24, 32), 1.0, (*rows[:2], Row(1, "Flatten"), rows[2])), 9)
    assert found.macs == (27 * 8 + 8) * 48 + 8 * 9 + 9
    assert found.parameters == 27 * 8 + 8 + 8 * 9 + 9
    assert cost(read_spec(shipped("small")), 9).macs < 2_000_000


NAMES = tuple(f"class {number}" for number in range(9))
KNOBS = load(Path(__file__).parents[2] / "params.yaml").quantize
FLOAT, EIGHT = replace(KNOBS, enabled=False), replace(KNOBS, enabled=True)
NETWORKS = {name: read_spec(shipped(name)) for name in ("small", "seed")} | {
    "branches": NetworkSpec(
        (24, 32),
        1.0,
        (
            Row(1, "Conv", (16, 3, 2)),
            Row(2, "ShuffleNetV2", (2,)),
            Row(1, "InvertedResidualv3", (3, 2, 24, 1, 1, 1)),
            Row(1, "FixedConv", (9, 1, 1, None, 1, None)),
            Row(1, "GlobalAvgPool"),
        ),
    )
}


@pytest.mark.parametrize("knobs", [FLOAT, EIGHT], ids=["float", "8 bits"])
@pytest.mark.parametrize("name", NETWORKS)
def test_costs_before_training_are_those_of_the_graded_file(
    name: str, knobs: Any, tmp_path: Path
) -> None:
    """Weights, calibration images and their number change no count, nor one byte of the size."""
    spec, path = NETWORKS[name], tmp_path / "model.onnx"
    module = build(spec, 9)
    initialize(module, "another", "address")
    rng = np.random.default_rng(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(torch.from_numpy(rng.standard_normal(norm.num_features)))
    export_onnx(module, spec.input, path, file_metadata(NAMES, NAMES[2], False))
    if knobs.enabled:
        sample = rng.integers(0, 256, (8, *spec.input, 3)).astype(np.uint8)
        path.write_bytes(quantized(onnx.load(path), sample, knobs))
    model = open_model(path)
    found = exported_cost(spec, NAMES, knobs)
    assert found == graded_cost(model)
    assert found.memory == peak_memory(model.graph)
    assert found.bytes == path.stat().st_size
    assert found.macs == cost(spec, 9).macs
    width = 8 if knobs.enabled else 32
    assert found.multiply_bits >= width * found.macs  # pooled maps are averaged in float
    if not knobs.enabled:
        assert found.parameter_bits == 32 * found.parameters
        assert found.multiply_bits == 32 * found.macs


def test_eight_bits_take_a_quarter_of_the_memory() -> None:
    for spec in NETWORKS.values():
        whole, eight = (exported_cost(spec, NAMES, knobs) for knobs in (FLOAT, EIGHT))
        assert 4 * eight.memory == whole.memory


def test_a_file_is_counted_where_a_contest_asks_for_it() -> None:
    spec = NETWORKS["branches"]
    plain = cost(spec, 9)
    whole = exported_cost(spec, NAMES, FLOAT)
    assert contest_cost(spec, NAMES, WASTE, EIGHT) == plain
    assert contest_cost(spec, NAMES, WASTE, FLOAT, axis="parameters") == plain
    assert contest_cost(spec, NAMES, WASTE, FLOAT, axis="memory") == whole
    for limits in ({"max_memory": 1}, {"max_bytes": 1}):
        assert contest_cost(spec, NAMES, replace(WASTE, **limits), FLOAT) == whole
    few = replace(WASTE, max_params=1)
    assert contest_cost(spec, NAMES, few, FLOAT) == plain  # is known without a file
    assert contest_cost(spec, NAMES, few, EIGHT) == exported_cost(spec, NAMES, EIGHT)
    over = replace(WASTE, max_memory=1, max_macs=plain.macs - 1)
    assert contest_cost(spec, NAMES, over, FLOAT) == plain  # it is out already
    with pytest.raises(NetworkError):
        contest_cost(NetworkSpec((4, 4), 1.0, (Row(1, "Conv", (8,)),)), NAMES, few, EIGHT)
