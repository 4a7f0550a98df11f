"""Counts MACs and parameters from the graph that will run, by the contest's rule.

The rule is that of ptflops 0.6.4 at batch 1, in ONNX's operators:

    Conv                        prod(kernel) C_in C_out / groups H' W', plus C_out H' W' with a bias
    Gemm, MatMul                in x out, plus out with a bias
    BatchNormalization          2 x input elements
    pooling                     input elements
    every other operator        0

Work that the rule does not see (elementwise products and sums, means and maxima that are no pooling
module) is added up as `elementwise`. In a network of ordinary blocks it is a few per cent; more of
it than counted MACs is hidden work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from weighin.errors import HiddenWorkError, ModelError, WeighinError
from weighin.grading.graph import walk
from weighin.grading.model import Model, open_model
from weighin.grading.nodes import Node, Shape

MAX_MACS = 10**12
ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu"}
REDUCTIONS = {"ReduceMean", "ReduceMax"}


@dataclass(frozen=True)
class Layer:
    """One operator's line of the count; `shape` is its output's, on one image."""

    name: str
    op: str
    shape: Shape
    macs: int


@dataclass(frozen=True)
class Count:
    """A model's work on one image, and its size."""

    macs: int
    parameters: int
    elementwise: int
    layers: tuple[Layer, ...]


def conv(node: Node, out: Shape) -> int:
    """Return a convolution's MACs."""
    return prod(node.weight(1)[1:]) * prod(out) + prod(out) * node.has(2)


def gemm(node: Node, out: Shape) -> int:
    """Return a linear layer's MACs."""
    return node.data()[1] * prod(out) + prod(out) * node.has(2)


def matmul(node: Node, out: Shape) -> int:
    """Return a matrix product's MACs."""
    return node.data()[-1] * prod(out)


def batch_norm(node: Node, out: Shape) -> int:
    """Return a batch norm's MACs."""
    return 2 * prod(out)


def pooling(node: Node, out: Shape) -> int:
    """Return a pooling's MACs."""
    return prod(node.data())


RULE: dict[str, Callable[[Node, Shape], int]] = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        pooling,
    ),
}


def recount(model: Model) -> Count:
    """Return what a checked model does on one image.

    Raises:
        ModelError: its work cannot be counted, or is not what its metadata claims.
        HiddenWorkError: it does more work in elementwise operators than the rule counts.
    """
    steps = walk(model)
    layers = tuple(
        Layer(node.name, node.op, shapes[0], RULE[node.op](node, shapes[0]))
        if node.op in RULE
        else Layer(node.name, node.op, shapes[0], 0)
        for node, shapes in steps
    )
    macs = sum(layer.macs for layer in layers)
    elementwise = sum(_unseen(node, shapes[0]) for node, shapes in steps)
    _check(model, macs, elementwise)
    return Count(macs, parameters(model), elementwise, layers)


def count_file(path: Path) -> Count:
    """Return what the model in an ONNX file does on one image."""
    return counted(open_model(path), path)


def counted(model: Model, path: Path) -> Count:
    """Return `recount(model)`, its errors naming the file that the model is from."""
    try:
        return recount(model)
    except WeighinError as error:
        raise type(error)(f"{path}: {error.problem}", error.fix) from None


def parameters(model: Model) -> int:
    """Return the number of stored float32 values, single numbers (a clip's limits) apart."""
    graph = model.proto.graph
    constants = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    tensors = [*graph.initializer, *constants]
    return sum(prod(t.dims) for t in tensors if t.data_type == 1 and len(t.dims))


def _unseen(node: Node, out: Shape) -> int:
    """Return the products and sums of an operator that the rule has no price for."""
    if node.op in REDUCTIONS:
        return prod(node.data())
    return prod(out) if node.op in ELEMENTWISE else 0


def _check(model: Model, macs: int, elementwise: int) -> None:
    if macs > MAX_MACS:
        raise ModelError(f"it does {macs:,} MACs an image, over {MAX_MACS:,}", "hand in less")
    if elementwise > macs:
        raise HiddenWorkError(
            f"{elementwise:,} elementwise products and sums hide behind {macs:,} counted MACs",
            "use convolutions and linear layers, which the rule counts",
        )
    if model.claimed_macs is not None and model.claimed_macs != str(macs):
        raise ModelError(
            f"its metadata claims {model.claimed_macs} MACs, its graph does {macs:,}",
            "export it again without the claim, or with what `weighin count` says",
        )
