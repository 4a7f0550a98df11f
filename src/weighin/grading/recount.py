"""Counts MACs and parameters from the graph that will run, by the rule of operators.py.

Work that the rule does not see (elementwise functions, reductions, the sums of a pooling beyond its
input) is counted as `unpriced`, and may be at most `CEILING` times the counted MACs. Thirteen
networks of torchvision and the shipped ones have 0.002 to 0.08 of it (docs/GRADING.md); what is
above the ceiling does its work where the rule gives 0.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from onnx import TensorProto

from weighin.errors import HiddenWorkError, ModelError, WeighinError
from weighin.file_names import printable
from weighin.grading.graph import StaticGraph, inputs_of, static_graph
from weighin.grading.model import Model, check_valid, damage_told, open_model, parse, read
from weighin.grading.operators import OPERATORS, Shape
from weighin.grading.runtime import Runner

CEILING = 0.5  # operations that the rule gives 0, for each MAC that it counts


@dataclass(frozen=True)
class Layer:
    """One operator's line of the count; `shape` is its output's, with the batch."""

    name: str
    op: str
    shape: Shape
    macs: int
    unpriced: int
    bits: int = 32  # of the wider factor of its multiplications


@dataclass(frozen=True)
class Count:
    """A model's work on one image, and its size."""

    macs: int
    parameters: int
    unpriced: int
    layers: tuple[Layer, ...]
    unknown: tuple[str, ...] = ()  # operators that are not listed in operators.py


def recount(model: Model) -> Count:
    """Return what a checked model does on one image.

    Raises:
        ModelError: its work is not what its metadata claims.
        HiddenWorkError: it does too much work that the rule does not see.
    """
    found = count(model.graph)
    if found.unpriced > CEILING * found.macs:
        raise HiddenWorkError(
            f"{found.unpriced:,} operations that the rule does not see hide behind "
            f"{found.macs:,} counted MACs; at most {CEILING:g} for each MAC are allowed",
            "use convolutions and linear layers, which the rule counts",
        )
    if model.claimed_macs is not None and model.claimed_macs != str(found.macs):
        raise ModelError(
            f"its metadata claims {printable(model.claimed_macs[:40])} MACs, "
            f"its graph does {found.macs:,}",
            "export it again without the claim, or with what `weighin count` says",
        )
    return found


def count(graph: StaticGraph) -> Count:
    """Return the work of a graph on one image."""
    listed = [node for node in graph.nodes if node.op in OPERATORS]
    layers = tuple(
        Layer(
            printable(node.name),
            node.op,
            node.outputs[0],
            OPERATORS[node.op].macs(node),
            OPERATORS[node.op].unpriced(node),
            node.bits,
        )
        for node in listed
    )
    return Count(
        macs=sum(layer.macs for layer in layers),
        parameters=parameters(graph),
        unpriced=sum(layer.unpriced for layer in layers),
        layers=layers,
        unknown=tuple(sorted({node.op for node in graph.nodes} - OPERATORS.keys())),
    )


def count_file(path: Path) -> Count:
    """Return what the graph in an ONNX file does on one image.

    A file with a contract is checked as for grading, and its shapes are compared with those of a
    run. Of any other the graph and its shapes are all that is needed: it may have other inputs, a
    fixed batch, and operators that the rule gives 0 (`Count.unknown` names them).

    Raises:
        ModelError: a shape stays unknown; or the file has a contract and is not gradable.
        HiddenWorkError: as `recount`.
    """
    path = Path(path)
    with damage_told(path):
        proto = parse(read(path))
        if not any(entry.key == "classes" for entry in proto.metadata_props):
            check_valid(proto)
            sides = [v.type.tensor_type.shape.dim[:1] for v in inputs_of(proto.graph)]
            fixed = [side.dim_value for first in sides for side in first if side.dim_value > 0]
            return count(static_graph(proto, max(fixed, default=1), strict=False))
    model = open_model(path)
    Runner(model).check(np.zeros((1, *model.size, 3), np.uint8))
    return counted(model, path)


def counted(model: Model, path: Path) -> Count:
    """Return `recount(model)`, its errors naming the file that the model is from."""
    try:
        return recount(model)
    except WeighinError as error:
        raise type(error)(f"{path}: {error.problem}", error.fix) from None


def parameters(graph: StaticGraph) -> int:
    """Return the number of stored values, single numbers (a clip's limits) apart.

    Values are float32, or the whole numbers of DequantizeLinear: quantized weights and biases, to
    which their scales by channel are added. Zero points of zeros are none.
    """
    nodes, tensors = graph.proto.graph.node, graph.proto.graph.initializer
    whole = {node.input[0] for node in nodes if node.op_type == "DequantizeLinear"}
    counted = (t for t in tensors if t.data_type == TensorProto.FLOAT or t.name in whole)
    return sum(prod(t.dims) for t in counted if len(t.dims))
