"""Makes one static graph of an ONNX file: it is checked, counted and run, and no other.

The batch gets a fixed size. What exporters leave behind to compute shapes (Shape, Gather, Concat
and their kin on stored numbers) is computed once, by ONNX Runtime itself, and its result stored;
after that every operator works on activations, and onnx.shape_inference knows every shape. There
is no second implementation of the runtime's rules here that a file could play against the first:
whatever folding gives is what runs. runtime.py compares the shapes with those that the runtime
produced.
"""

from collections.abc import Collection, Container
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from weighin.errors import ModelError
from weighin.file_names import printable
from weighin.grading.operators import FIX, OPERATORS, Node, Shape, Tensor, called, refused
from weighin.grading.runtime import one_line, run, session

BATCH = 32  # images at once
MAX_VALUES = 2**24  # of one activation of a batch: 64 MB
MAX_WORK = 2**31  # MACs of a batch: a second or less
MAX_ELEMENTS = 2**25  # of one activation of one image: 128 MB
MAX_FOLDED = 2**22  # elements of one stored tensor that folding makes
MAX_ROUNDS = 50  # of folding
LARGE = 1024  # elements: shape inference needs no values of larger stored tensors
OTHER_BATCH = 61  # a prime: a graph that reads the size of the batch must not act on it
FOLDED = {
    *("Constant", "ConstantOfShape", "Identity", "Cast", "Gather", "Concat", "Slice", "Squeeze"),
    *("Unsqueeze", "Reshape", "Flatten", "Transpose", "Expand", "Add", "Sub", "Mul", "Div", "Mod"),
    *("Neg", "Floor", "Ceil", "Sqrt", "Min", "Max", "Range", "Equal", "Where", "ReduceProd"),
    *("ReduceSum", "Pow"),
}
# what has outputs that may be left out: the mask of a Dropout, the places of a MaxPool, ...
OPTIONAL = {"Dropout", "MaxPool", "LayerNormalization"}
QUANTIZATION = {"QuantizeLinear", "DequantizeLinear"}
HANDS_ON = {"Identity", "Flatten", "Reshape", "Squeeze", *QUANTIZATION}
EIGHT_BITS = (TensorProto.UINT8, TensorProto.INT8)
# checked even in a batch of 1: chance, or products that the rule does not see
NEVER_ALONE = {"BatchNormalization", "Dropout", "QuantizeLinear", "DequantizeLinear"}
WINDOWS = ("Conv", "Pool")  # in the names of operators that move one over a map
Known = dict[str, Any]  # stored tensors (TensorProto) by name
Value = tuple[int, Shape | None]  # type and shape; None if a side is unknown


@dataclass(frozen=True)
class StaticGraph:
    """A graph without free sizes, its operators in order, and the shape of each activation."""

    proto: Any = field(repr=False)  # onnx.ModelProto
    batch: int
    nodes: tuple[Node, ...]
    shapes: dict[str, Shape]  # of everything that is computed, and of the input

    @property
    def largest(self) -> int:
        """The most numbers that one activation of one image has."""
        return max(prod(shape[1:]) for shape in self.shapes.values())

    @property
    def gives_probabilities(self) -> bool:
        """Whether the result is a Softmax's, whatever hands it on."""
        makers = {name: node for node in self.proto.graph.node for name in node.output}
        node = makers.get(self.proto.graph.output[0].name)
        while node is not None and node.op_type in HANDS_ON:
            node = makers.get(node.input[0])
        return node is not None and node.op_type == "Softmax"


def refuse(problem: str) -> ModelError:
    """Return the error for a model that is not gradable."""
    return ModelError(problem, FIX)


def independent_graph(proto: Any, fixed: int) -> StaticGraph:
    """Return the graph of a classifier, proved not to mix the images of a batch.

    Args:
        proto: An onnx.ModelProto of one input and one output.
        fixed: The batch that the file fixes; 0 if it is free. A batch of 1 mixes nothing.

    Raises:
        ModelError: an operator is unknown or mixes images, a shape stays unknown, something is
            damaged, or the graph acts on the size of the batch.
    """
    one = static_graph(proto, fixed or 1)
    if fixed == 1:
        for node in one.nodes:
            if node.op in NEVER_ALONE:
                OPERATORS[node.op].check(node)
        return one
    work = sum(OPERATORS[node.op].macs(node) for node in one.nodes)
    batch = fixed or max(2, min(BATCH, MAX_VALUES // one.largest, MAX_WORK // max(1, work)))
    graph = static_graph(proto, batch)
    for node in graph.nodes:
        OPERATORS[node.op].check(node)
        if any(shape[:1] != (batch,) for shape in node.outputs):
            raise node.refusal(f"{node.outputs[0]} does not hold one row for each image")
    _check_batches(one, graph)
    if not fixed and any(node.op_type == "Shape" for node in proto.graph.node):
        _check_batches(graph, static_graph(proto, OTHER_BATCH))
    return graph


def inputs_of(graph: Any) -> list[Any]:
    """Return the inputs of a graph that it stores no value for."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def static_graph(proto: Any, batch: int, strict: bool = True) -> StaticGraph:
    """Return the graph of `proto` for batches of `batch` images.

    Without `strict` it is for counting alone: operators that OPERATORS does not list, and results
    that are no float32, are let through.

    Raises:
        ModelError: an operator is unknown, a shape stays unknown, or something is damaged.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    del graph.value_info[:]  # claims
    _keep(graph.input, inputs_of(graph))  # so that no stored tensor can be overridden
    model.ir_version = max(model.ir_version, 4)  # until then a stored tensor had to be an input too
    for value in graph.input:
        for side in value.type.tensor_type.shape.dim[:1]:
            side.dim_value = side.dim_value if side.dim_value > 0 else batch
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    if strict:
        _drop_unread(graph)
    _fold(model, strict)
    weights = _stored_weights(model)
    shapes = _complete(model, weights, strict)
    for value in graph.output:
        for size in shapes.get(value.name, ()):
            value.type.tensor_type.shape.dim.add().dim_value = size
    eight = {node.output[0] for node in graph.node if node.op_type in QUANTIZATION}
    known = {name: Tensor(shape, bits=8 if name in eight else 32) for name, shape in shapes.items()}
    known |= {t.name: Tensor(tuple(t.dims), array(t)) for t in graph.initializer} | weights
    nodes = (node for node in graph.node if node.output[0] not in weights)
    return StaticGraph(model, batch, tuple(_node(n, known, batch, strict) for n in nodes), shapes)


def _drop_unread(graph: Any) -> None:
    """Leave out optional outputs that nothing reads."""
    read = {name for node in graph.node for name in node.input if name}
    read |= {value.name for value in graph.output}
    for node in graph.node:
        while node.op_type in OPTIONAL and node.output[1:] and node.output[-1] not in read:
            del node.output[-1]


def _stored_weights(model: Any) -> dict[str, Tensor]:
    """Return the dequantized stored numbers by name.

    Their operators stay in the graph: the runtime chooses its integer kernels by them.
    """
    known: Known = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and all(not n or n in known for n in node.input)
    ]
    if not nodes:
        return {}
    found = _evaluated(model, nodes, known)
    sources = {node.output[0]: array(known[node.input[0]]) for node in nodes}
    return {
        name: Tensor(tuple(tensor.dims), array(tensor), 8 * sources[name].dtype.itemsize)
        for name, tensor in found.items()
    }


def array(tensor: Any) -> Any:
    """Return the values of a stored tensor.

    Raises:
        ModelError: it holds fewer or more values than its shape says.
    """
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        raise refuse(f"tensor {printable(tensor.name[:80])} is damaged") from None


def _node(proto: Any, known: dict[str, Tensor], batch: int, strict: bool) -> Node:
    name = called(proto)
    if strict and proto.op_type not in OPERATORS:
        raise refused(proto.op_type, name, "its work cannot be counted")
    for source in proto.input:
        if source and source not in known:
            raise refused(proto.op_type, name, f"{printable(source[:80])} comes from nowhere")
    if strict and len(proto.output) > 1 and proto.op_type != "Split":
        raise refused(proto.op_type, name, "only its first output is allowed")
    return Node(
        proto.op_type,
        name,
        {entry.name: helper.get_attribute_value(entry) for entry in proto.attribute},
        tuple(known[source] if source else None for source in proto.input),
        tuple(known[result].shape for result in proto.output if result),
        batch,
    )


def _check_batches(one: StaticGraph, other: StaticGraph) -> None:
    """Check that a graph does the same to each image at two sizes of the batch."""
    for name, shape in one.shapes.items():
        if shape[1:] != other.shapes.get(name, ())[1:]:
            raise refuse(
                f"{printable(name[:80])} is {shape} in a batch of {one.batch} and "
                f"{other.shapes.get(name)} in one of {other.batch}: it acts on the batch's size"
            )
    targets = {node.input[1] for node in one.proto.graph.node if node.op_type == "Reshape"}
    values = {tensor.name: tensor for tensor in other.proto.graph.initializer}
    for tensor in one.proto.graph.initializer:
        if tensor.name not in targets and tensor != values.get(tensor.name):
            raise refuse(f"{printable(tensor.name[:80])} depends on the size of the batch")


def _store_constants(graph: Any) -> None:
    """Store the tensors of Constant operators as those are that need no operator."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and [entry.name for entry in node.attribute] == ["value"]:
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    _keep(graph.node, kept)


def _fold(model: Any, strict: bool) -> None:
    """Replace what depends on stored numbers and known shapes alone by its value."""
    graph = model.graph
    _store_constants(graph)
    known: Known = {tensor.name: tensor for tensor in graph.initializer}
    for _ in range(MAX_ROUNDS):
        if not any(node.op_type == "Shape" or _is_stored(node, known) for node in graph.node):
            break
        shapes = {name: shape for name, (_, shape) in _inferred(model).items() if shape is not None}
        shapes |= {name: tuple(tensor.dims) for name, tensor in known.items()}
        found = _sizes(graph, shapes)
        known |= found
        if ready := _ready(graph, shapes, known, strict):
            found |= _evaluated(model, ready, known)
        if not found:
            break
        known |= found
        _keep(graph.node, [node for node in graph.node if not found.keys() & set(node.output)])
        graph.initializer.extend(found.values())
    used = {name for node in graph.node for name in node.input}
    _keep(graph.initializer, [tensor for name, tensor in known.items() if name in used])


def _keep(repeated: Any, kept: list[Any]) -> None:
    del repeated[:]
    repeated.extend(kept)


def _is_stored(node: Any, names: Container[str]) -> bool:
    return node.op_type in FOLDED and all(not name or name in names for name in node.input)


def _sizes(graph: Any, shapes: dict[str, Shape]) -> Known:
    """Return the values of the Shape operators whose input has a known shape."""
    found = {}
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            limits = {entry.name: entry.i for entry in node.attribute}
            sides = shapes[node.input[0]][limits.get("start", 0) : limits.get("end")]
            name = node.output[0]
            found[name] = numpy_helper.from_array(np.array(sides, np.int64), name)
    return found


def _ready(graph: Any, shapes: dict[str, Shape], known: Known, strict: bool) -> list[Any]:
    """Return the operators whose value can be computed, each after those that it needs.

    Raises:
        ModelError: `strict`, and the value of one is large: a small file must not make it.
    """
    nodes, names = [], set(known)
    for node in graph.node:
        if not _is_stored(node, names):
            continue
        size = prod(shapes.get(node.output[0], (0,)))
        if size > MAX_FOLDED:
            if strict:
                problem = f"it makes {size:,} numbers of stored ones, over {MAX_FOLDED:,}"
                fix = (
                    "store them in the file: torch.onnx.export does, with do_constant_folding=True"
                )
                raise refused(node.op_type, called(node), problem, fix)
            continue  # no shape depends on so many, and the shape of them is known
        if node.output[0] not in shapes or not _divides(node, known):
            continue  # its inputs are not known yet
        nodes.append(node)
        names.add(node.output[0])
    return nodes


def _divides(node: Any, known: Known) -> bool:
    """Return whether a quotient's divisor is known; one of 0 or -1 would end the process."""
    if node.op_type not in ("Div", "Mod"):
        return True
    if node.input[1] not in known:
        return False
    divisor = array(known[node.input[1]])
    if divisor.dtype.kind != "f" and np.isin(divisor, (0, -1)).any():
        raise refused(node.op_type, called(node), "it divides whole numbers by 0 or -1")
    return True


def _evaluated(model: Any, nodes: list[Any], known: Known) -> Known:
    """Return the values of operators on stored numbers, as ONNX Runtime computes them."""
    needed = dict.fromkeys(name for node in nodes for name in node.input if name in known)
    outputs = [node.output[0] for node in nodes]
    graph = helper.make_graph(
        nodes, "folded", [], [onnx.ValueInfoProto(name=name) for name in outputs]
    )
    graph.initializer.extend(known[name] for name in needed)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    values = run(session(part, optimized=False), {})
    arrays = zip(outputs, map(np.asarray, values), strict=True)
    return {name: numpy_helper.from_array(values, name) for name, values in arrays}


def _complete(model: Any, weights: Collection[str], strict: bool) -> dict[str, Shape]:
    """Return the shape of each input and of each result but `weights`, all of them known.

    If `strict`, results are float32, and those of QuantizeLinear have 8 bits.
    """
    values, shapes = _inferred(model), {}
    names = [value.name for value in model.graph.input]
    for node in model.graph.node:
        results = [name for name in node.output if name and name not in weights]
        kinds = EIGHT_BITS if node.op_type == "QuantizeLinear" else (TensorProto.FLOAT,)
        names += results
        for name in results:
            kind, sides = values.get(name, (0, None))
            if sides is None or (strict and (kind not in kinds or not sides)):
                raise refused(node.op_type, node.name or name, "its work cannot be counted")
            if strict and (min(sides) < 1 or prod(sides[1:]) > MAX_ELEMENTS):
                raise refused(node.op_type, node.name or name, f"{sides} is empty or too large")
            if min(sides, default=1) < (1 if any(w in node.op_type for w in WINDOWS) else 0):
                problem = f"its output is {sides}: its window is larger than its input"
                raise refused(node.op_type, node.name or name, problem)
    for name in names:
        sides = values[name][1]
        if sides is None:
            raise refuse(f"{printable(name[:80])} has no fixed size")
        shapes[name] = sides
    return shapes


def _inferred(model: Any) -> dict[str, Value]:
    """Return the type and the shape of each input and result by ONNX's own inference."""
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = "skeleton"
    graph.node.extend(model.graph.node)
    for node in graph.node:
        if node.op_type == "GroupNormalization":  # onnx infers none: it is that of its input
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output[:1]))
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= LARGE:
            graph.initializer.append(tensor)
        else:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(value)
    try:
        found = shape_inference.infer_shapes(skeleton, True, strict_mode=True, data_prop=True).graph
    except Exception as error:  # InferenceError, and whatever C++ raises
        raise refuse(f"its shapes do not fit: {one_line(error)}") from None
    return {v.name: _value(v) for v in [*found.value_info, *found.output, *model.graph.input]}


def _value(value: Any) -> Value:
    tensor = value.type.tensor_type
    sides = tensor.shape.dim
    known = tensor.HasField("shape") and all(side.HasField("dim_value") for side in sides)
    return tensor.elem_type, tuple(side.dim_value for side in sides) if known else None
