"""Counts MACs and parameters from the graph that will run, by the rule of operators.py.

Work that the rule does not see (elementwise functions, reductions, the sums of a pooling beyond its
input) is counted as `unpriced`, and may be at most `CEILING` times the counted MACs. Thirteen
networks of torchvision and the shipped ones have 0.002 to 0.08 of it (docs/GRADING.md); what is
above the ceiling does its work where the rule gives 0.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from weighin.errors import HiddenWorkError, ModelError, WeighinError
from weighin.file_names import printable
from weighin.grading.graph import StaticGraph
from weighin.grading.model import Model, open_model
from weighin.grading.operators import OPERATORS, Shape

CEILING = 0.5  # operations that the rule gives 0, for each MAC that it counts


@dataclass(frozen=True)
class Layer:
    """One operator's line of the count; `shape` is its output's, with the batch."""

    name: str
    op: str
    shape: Shape
    macs: int
    unpriced: int


@dataclass(frozen=True)
class Count:
    """A model's work on one image, and its size."""

    macs: int
    parameters: int
    unpriced: int
    layers: tuple[Layer, ...]


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
    layers = tuple(
        Layer(
            printable(node.name),
            node.op,
            node.outputs[0],
            OPERATORS[node.op].macs(node),
            OPERATORS[node.op].unpriced(node),
        )
        for node in graph.nodes
    )
    return Count(
        macs=sum(layer.macs for layer in layers),
        parameters=parameters(graph),
        unpriced=sum(layer.unpriced for layer in layers),
        layers=layers,
    )


def count_file(path: Path) -> Count:
    """Return what the model in an ONNX file does on one image."""
    return counted(open_model(path), path)


def counted(model: Model, path: Path) -> Count:
    """Return `recount(model)`, its errors naming the file that the model is from."""
    try:
        return recount(model)
    except WeighinError as error:
        raise type(error)(f"{path}: {error.problem}", error.fix) from None


def parameters(graph: StaticGraph) -> int:
    """Return the number of stored float32 values, single numbers (a clip's limits) apart."""
    tensors = graph.proto.graph.initializer
    return sum(prod(t.dims) for t in tensors if t.data_type == 1 and len(t.dims))
