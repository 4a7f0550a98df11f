"""Walks a graph that nobody vouches for and returns each operator with the shapes it works on.

`RULES` is the list of operators that may occur. An operator that is not in it is refused by name:
the work of an unknown operator cannot be counted.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from weighin.grading import layers, layout
from weighin.grading.model import Model, refuse
from weighin.grading.nodes import Fact, Node, Shape, activation, whole

Step = tuple[Node, tuple[Shape, ...]]  # an operator and the shapes of its outputs

MAX_ELEMENTS = 2**25  # of one activation of one image: 128 MB
PROBE_BATCH = 61  # a prime: a graph that treats another batch size otherwise shows it

ELEMENT_BY_ELEMENT = (
    *("Relu", "LeakyRelu", "Elu", "Selu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("Tanh", "Softplus", "Mish", "Erf", "Gelu", "Abs", "Neg", "Sqrt"),
)

RULES: dict[str, Callable[[Node], list[Fact]]] = {
    "Conv": layers.conv,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "BatchNormalization": layers.batch_norm,
    "MaxPool": layers.pool,
    "AveragePool": layers.pool,
    "GlobalAveragePool": layers.global_pool,
    "GlobalMaxPool": layers.global_pool,
    "PRelu": layers.prelu,
    "Softmax": layers.softmax,
    "LogSoftmax": layers.softmax,
    **dict.fromkeys(ELEMENT_BY_ELEMENT, layers.same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), layers.binary),
    **dict.fromkeys(("Identity", "Dropout"), layers.identity),
    "Concat": layout.concat,
    "Split": layout.split,
    "Slice": layout.slice_,
    "Gather": layout.gather,
    "Reshape": layout.reshape,
    "Transpose": layout.transpose,
    "Flatten": layout.flatten,
    "Squeeze": layout.squeeze,
    "Unsqueeze": layout.unsqueeze,
    "Pad": layout.pad,
    "ReduceMean": layout.reduce,
    "ReduceMax": layout.reduce,
    "Shape": layout.shape,
    "Cast": layout.on_ints,
}


def walk(model: Model) -> list[Step]:
    """Return the operators of a model with the shapes they have on one image.

    Raises:
        ModelError: an operator is unknown, does not fit, or does for one image what it does not
            do for several; the message names it.
    """
    alone, many = _walk(model, 1), _walk(model, PROBE_BATCH)
    for (node, one), (_, several) in zip(alone, many, strict=True):
        if any(a[1:] != b[1:] for a, b in zip(one, several, strict=True)):
            raise node.fail("it works otherwise on several images than on one")
    return alone


def _walk(model: Model, batch: int) -> list[Step]:
    graph = model.proto.graph
    known = {tensor.name: _stored(tensor) for tensor in graph.initializer}
    known["images"] = activation(batch, 3, *model.size)
    steps = []
    for proto, attributes in _nodes(graph):
        node = _node(proto, attributes, known)
        facts = _apply(node)
        for name, fact in zip(proto.output, facts, strict=False):
            if name in known:
                raise node.fail(f"it overwrites {name}")
            known[name] = fact
        if any(fact.kind == "activation" for fact in facts):
            steps.append((node, tuple(fact.shape for fact in facts)))
    logits = known.get("logits")
    if logits is None or logits.kind != "activation":
        raise refuse("`logits` is not computed from `images`")
    if logits.shape != (batch, len(model.classes)):
        raise refuse(f"`logits` comes out as {logits.shape}, not one number a class")
    return steps


def _nodes(graph: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    for proto in graph.node:
        if proto.op_type not in RULES and proto.op_type != "Constant":
            raise refuse(f"operator {proto.op_type} {proto.name}: its work cannot be counted")
        if any(attribute.HasField("g") or len(attribute.graphs) for attribute in proto.attribute):
            raise refuse(f"operator {proto.op_type} {proto.name}: it holds a graph of its own")
        yield proto, {attribute.name: _value(proto, attribute) for attribute in proto.attribute}


def _value(proto: Any, attribute: Any) -> Any:
    try:
        value = helper.get_attribute_value(attribute)
    except ValueError:
        raise refuse(
            f"operator {proto.op_type} {proto.name}: {attribute.name} is damaged"
        ) from None
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _node(proto: Any, attributes: dict[str, Any], known: dict[str, Fact]) -> Node:
    for name in proto.input:
        if name and name not in known:
            raise refuse(f"operator {proto.op_type} {proto.name}: {name} comes from nowhere")
    inputs = tuple(known[name] if name else None for name in proto.input)
    label = proto.name or (proto.output[0] if proto.output else "")
    return Node(proto.op_type, label, inputs, attributes, len(proto.output))


def _apply(node: Node) -> list[Fact]:
    if node.op == "Constant":
        return [_constant(node)]
    given = [fact for fact in node.inputs if fact is not None]
    if node.op != "Shape" and given and all(fact.kind == "ints" for fact in given):
        return layout.on_ints(node)
    try:
        facts = RULES[node.op](node)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        raise node.fail("it lacks an input or an attribute") from None
    for fact in facts:
        if fact.kind == "activation" and prod(fact.shape[1:]) > MAX_ELEMENTS:
            raise node.fail(f"{fact.shape} is absurdly large")
    if node.outputs > len(facts):
        raise node.fail("it has more outputs than are counted")
    return facts


def _constant(node: Node) -> Fact:
    for name, value in node.attributes.items():
        if name == "value":
            return _stored(value)
        if name in ("value_int", "value_ints"):
            return whole(value)
        if name in ("value_float", "value_floats"):
            return Fact(np.shape(value), "weight")
    raise node.fail("its value is of a kind that is not counted")


def _stored(tensor: Any) -> Fact:
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, MemoryError):
        raise refuse(f"tensor {tensor.name} is damaged") from None
    if tensor.data_type == TensorProto.FLOAT:
        return Fact(values.shape, "weight")
    return whole(values)
