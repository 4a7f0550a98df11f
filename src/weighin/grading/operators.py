"""The operators that a graded graph may hold: what each must prove, and what it costs.

The contest's rule is that of ptflops 0.6.4 at batch 1, in ONNX's operators:

    Conv                        prod(kernel) C_in C_out / groups H' W', plus C_out H' W' with a bias
    Gemm, MatMul                in x out, plus out with a bias
    BatchNormalization          2 x input elements
    pooling                     input elements
    every other operator        0

What the rule gives 0, and the sums of a pooling beyond its input, is counted beside it as
`unpriced`: one operation for each element that an operator writes (reductions: reads).

An operator is allowed if its axis 0, the batch, goes through it untouched, so that the label of an
image depends on that image alone. Shapes are no business of this file: graph.py has them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.errors import ModelError
from weighin.file_names import printable

FIX = "docs/GRADING.md says what a gradable file holds and how to export one"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """An input of an operator: its shape, and its values where the file stores them."""

    shape: Shape
    stored: npt.NDArray[Any] | None = None
    bits: int = 32  # of a number of it: 8 for what is quantized, or comes from DequantizeLinear


@dataclass(frozen=True)
class Node:
    """An operator of a static graph; a left-out optional input is None."""

    op: str
    name: str
    attributes: dict[str, Any]
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Shape, ...]  # with the batch
    batch: int

    @property
    def data(self) -> Shape:
        """The shape of the first input."""
        first = self.inputs[0]
        assert first is not None  # graph.py has seen to it
        return first.shape

    @property
    def elements(self) -> int:
        """How many numbers it writes for one image."""
        return sum(map(prod, self.outputs)) // self.batch

    @property
    def bits(self) -> int:
        """The width of its multiplications: that of the wider factor."""
        return max((tensor.bits for tensor in self.inputs[:2] if tensor), default=32)

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def refusal(self, problem: str) -> ModelError:
        """Return the error that names this operator."""
        return refused(self.op, self.name, problem)

    def axes(self, index: int, attribute: str, default: list[int] | None = None) -> list[int]:
        """Return axes, stored as an input or an attribute, counted from the front.

        Raises:
            ModelError: there are none, or the batch is one of them.
        """
        stored = self.inputs[index] if self.has(index) else None
        given = stored.stored.ravel().tolist() if stored and stored.stored is not None else None
        found = given or self.attributes.get(attribute, default)
        found = [found] if isinstance(found, int) else found
        if not found or any(axis % len(self.data) == 0 for axis in found):
            raise self.refusal("it works along the batch, which mixes images")
        return found


def called(proto: Any) -> str:
    """Return what to call an onnx.NodeProto in a message: its name, or its first output's."""
    return proto.name or next(filter(None, proto.output), "without a name")


def refused(op: str, name: str, problem: str, fix: str = FIX) -> ModelError:
    """Return the error about an operator."""
    return ModelError(f"operator {printable(op)} {printable(name[:80])}: {problem}", fix)


# ---- what proves that images are not mixed; B is the batch -----------------------------------


def _one_activation(node: Node) -> None:
    """The first input is computed from the images, all others are stored."""
    first, *others = node.inputs
    if first is None or first.stored is not None:
        raise node.refusal("its input 0 is not computed from the images")
    if any(other is not None and other.stored is None for other in others):
        raise node.refusal("a weight or a limit of it is computed from the images")


def _frozen(node: Node) -> None:
    _one_activation(node)
    stored = node.inputs[2] if node.op == "Dropout" and node.has(2) else None
    if node.attributes.get("training_mode") or (stored and np.any(stored.stored)):
        raise node.refusal("it is in training mode: its result depends on other images or on luck")


def _broadcast(node: Node) -> None:
    """Every image meets its own numbers, or numbers that are the same for all images."""
    rank = len(node.outputs[0])
    for tensor in filter(None, node.inputs):
        if tensor.stored is None and len(tensor.shape) != rank:
            raise node.refusal(f"{tensor.shape} against {node.outputs[0]} moves the batch")
        if tensor.stored is not None and len(tensor.shape) == rank:
            _same_for_all(node, tensor.stored)


def _same_for_all(node: Node, values: npt.NDArray[Any]) -> None:
    if len(values) != 1 and any(row.tobytes() != values[0].tobytes() for row in values):
        raise node.refusal("its stored numbers differ from image to image of a batch")


def _rows_stay(node: Node) -> None:
    """Row-major elements of a tensor whose first side stays B stay with their image."""
    _one_activation(node)
    if node.data[0] != node.outputs[0][0]:
        raise node.refusal(f"{node.data} to {node.outputs[0]} mixes images")


def _gemm(node: Node) -> None:
    _one_activation(node)
    get = node.attributes.get
    if get("transA", 0) or get("alpha", 1.0) != 1 or get("beta", 1.0) != 1:
        raise node.refusal("transA, alpha or beta is not counted; store the weights multiplied")
    bias = node.inputs[2] if node.has(2) else None
    if bias is not None and bias.stored is not None and bias.stored.ndim == 2:
        _same_for_all(node, bias.stored)


def _matmul(node: Node) -> None:
    """(B, ..., K) times a stored (K, N), (B, ..., M, K) times (B, ..., K, N), or stored (M, K)."""
    first, second = node.inputs
    assert first is not None and second is not None
    live = [tensor for tensor in (first, second) if tensor.stored is None]
    stored = [tensor for tensor in (first, second) if tensor.stored is not None]
    rank = len(live[0].shape)
    fits = all(len(t.shape) == 2 or 2 < len(t.shape) < rank for t in stored)
    if not fits or rank < (3 if second.stored is None else 2) or len(live[-1].shape) != rank:
        raise node.refusal(f"{first.shape} times {second.shape} may mix images")


def _concat(node: Node) -> None:
    node.axes(99, "axis")
    for tensor in filter(None, node.inputs):
        if tensor.stored is not None:
            _same_for_all(node, tensor.stored)


def _quantization(node: Node) -> None:
    """One stored scale and zero point serve the whole tensor: others would be products."""
    _one_activation(node)
    for number in filter(None, node.inputs[1:]):
        if prod(number.shape) != 1:
            problem = "its scale differs along the tensor: products that the rule does not see"
            raise node.refusal(f"{problem}; only weights may be quantized by channel")
    scale = node.inputs[1]
    if scale is None or scale.stored is None or not 0 < scale.stored.item() < np.inf:
        raise node.refusal("its scale is no number above 0, so that 8 bits stand for nothing")


def _along(index: int, attribute: str, default: list[int] | None = None) -> "Check":
    """Return the check of an operator that works along axes that it names."""

    def check(node: Node) -> None:
        _one_activation(node)
        node.axes(index, attribute, default)

    return check


def _layer_norm(node: Node) -> None:
    _one_activation(node)
    _broadcast(node)
    node.axes(99, "axis", [-1])


def _slice(node: Node) -> None:
    _one_activation(node)
    starts = node.inputs[1]
    assert starts is not None and starts.stored is not None
    node.axes(3, "axes", list(range(starts.stored.size)))


def _transpose(node: Node) -> None:
    _one_activation(node)
    order = node.attributes.get("perm", [1])
    if order[0] != 0:
        raise node.refusal("it moves the batch")


def _pad(node: Node) -> None:
    _one_activation(node)
    pads = node.inputs[1]
    assert pads is not None and pads.stored is not None
    rank = len(node.data)
    if node.has(3):
        node.axes(3, "axes")
    elif pads.stored.size != 2 * rank or pads.stored[0] or pads.stored[rank]:
        raise node.refusal("it adds images, or takes some away")


# ---- what the rule counts, for one image -----------------------------------------------------


def _conv_macs(node: Node, weight: int = 1, bias: int = 2) -> int:
    kernels, offsets = node.inputs[weight], node.inputs[bias] if node.has(bias) else None
    assert kernels is not None
    outputs, channels, *sides = kernels.shape
    group = node.attributes.get("group", 1)
    fits = channels * group == node.data[1] and outputs % group == 0
    fits &= [*node.attributes.get("kernel_shape", sides)] == sides
    if not fits or (offsets and offsets.shape != (outputs,)):
        told = f"weights of {kernels.shape}" + (f" and {offsets.shape}" if offsets else "")
        raise node.refusal(f"{told}, in {group} groups, do not fit an input of {node.data}")
    return (channels * prod(sides) + node.has(bias)) * node.elements


def _gemm_macs(node: Node) -> int:
    inner = node.data[0 if node.attributes.get("transA") else -1]
    return (inner + node.has(2)) * node.elements


def _matmul_macs(node: Node) -> int:
    return node.data[-1] * node.elements


def _input_elements(node: Node) -> int:
    return prod(node.data) // node.batch


# ---- and what it does not ---------------------------------------------------------------------


def _nothing(node: Node) -> int:
    return 0


def _elementwise(node: Node) -> int:
    return node.elements * max(1, sum(tensor is not None for tensor in node.inputs) - 1)


def _thrice(node: Node) -> int:
    return 3 * node.elements


def _window(node: Node) -> int:
    window: int = prod(node.attributes["kernel_shape"])
    return max(0, window * node.elements - _input_elements(node))


Check = Callable[[Node], None]
Work = Callable[[Node], int]


@dataclass(frozen=True)
class Operator:
    """What a kind of operator must prove, what the rule counts of it, and what it does not."""

    check: Check
    macs: Work
    unpriced: Work


def _kinds(
    names: str, check: Check, macs: Work = _nothing, unpriced: Work = _nothing
) -> Iterable[tuple[str, Operator]]:
    return ((name, Operator(check, macs, unpriced)) for name in names.split())


OPERATORS: dict[str, Operator] = dict(
    [
        *_kinds("Conv", _one_activation, _conv_macs),
        *_kinds("Gemm", _gemm, _gemm_macs),
        *_kinds("MatMul", _matmul, _matmul_macs),
        *_kinds("BatchNormalization", _frozen, lambda node: 2 * _input_elements(node)),
        *_kinds("MaxPool AveragePool", _one_activation, _input_elements, _window),
        *_kinds("GlobalAveragePool GlobalMaxPool", _one_activation, _input_elements),
        *_kinds(
            "Relu LeakyRelu Elu Selu Celu Clip Sigmoid HardSigmoid HardSwish Tanh Softplus "
            "Softsign Mish Erf Gelu Abs Neg Sqrt Exp Log Reciprocal",
            _one_activation,
            unpriced=lambda node: node.elements,
        ),
        *_kinds("Add Sub Mul Div Max Min Sum Pow PRelu", _broadcast, unpriced=_elementwise),
        *_kinds("Softmax LogSoftmax", _along(99, "axis", [-1]), unpriced=_thrice),
        *_kinds("LayerNormalization RMSNormalization", _layer_norm, unpriced=_thrice),
        *_kinds("GroupNormalization InstanceNormalization", _one_activation, unpriced=_thrice),
        *_kinds("ReduceMean ReduceMax ReduceSum", _along(1, "axes"), unpriced=_input_elements),
        *_kinds("QuantizeLinear", _quantization, unpriced=lambda node: node.elements),
        *_kinds("DequantizeLinear", _quantization),  # its scale joins the next one's
        *_kinds("Identity Dropout", _frozen),
        *_kinds("Reshape Flatten Squeeze Unsqueeze", _rows_stay),
        *_kinds("Transpose", _transpose),
        *_kinds("DepthToSpace SpaceToDepth", _one_activation),
        *_kinds("Concat", _concat),
        *_kinds("Split Gather", _along(99, "axis", [0])),
        *_kinds("Slice", _slice),
        *_kinds("Pad", _pad),
    ]
)
# Conv, Gemm and MatMul of whole numbers: {operator: (its work, the places of its parameters)}. They
# are counted, and are not gradable: a gradable graph has DequantizeLinear before plain operators.
INTEGER: dict[str, tuple[Work, tuple[int, ...]]] = {
    "ConvInteger": (lambda node: _conv_macs(node, bias=4), (1,)),
    "QLinearConv": (lambda node: _conv_macs(node, 3, 8), (3, 8)),
    "MatMulInteger": (_matmul_macs, (0, 1)),
    "QLinearMatMul": (_matmul_macs, (0, 3)),
}
# Sums of products that the rule has no line for: refused by the count too, for 0 would be untrue.
UNRULED = {
    *("ConvTranspose", "DeformConv", "Einsum", "LSTM", "GRU", "RNN", "DFT", "STFT", "AffineGrid"),
    *("Attention", "FlexAttention", "LinearAttention", "CausalConvWithState"),
    *("LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor"),
}
MULTIPLIES = {
    *(name for name, kind in OPERATORS.items() if kind.macs is not _nothing),
    *(*INTEGER, *UNRULED),
}
