"""Counts MACs, parameters and memory from the graph that will run, by the rule of operators.py.

Work that the rule does not see (elementwise functions, reductions, the sums of a pooling beyond its
input) is counted as `unpriced`, and may be at most `CEILING` times the counted MACs. Thirteen
networks of torchvision and the shipped ones have 0.002 to 0.08 of it (docs/GRADING.md); what is
above the ceiling does its work where the rule gives 0.

Memory is what a microcontroller runs out of: RAM for the activations of one image; weights stay in
flash. An operator needs its inputs and outputs together, each tensor whole, and a tensor lives
until its last reader is done; the order of the operators is the best that there is (Lin et al.,
"MCUNet: tiny deep learning on IoT devices", NeurIPS 2020, count the same way). Number by number
functions work in place. In a quantized graph a tensor between operators has 8 bits: QuantizeLinear
is part of the operator before it, DequantizeLinear of the one behind.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from weighin.errors import HiddenWorkError, ModelError, WeighinError
from weighin.file_names import printable
from weighin.grading.graph import StaticGraph, inputs_of, static_graph
from weighin.grading.model import (
    Model,
    check_sides,
    check_valid,
    damage_told,
    graphs_of,
    open_model,
    operators,
    parse,
    read,
)
from weighin.grading.operators import (
    INTEGER,
    MULTIPLIES,
    OPERATORS,
    UNRULED,
    Shape,
    called,
    refused,
)
from weighin.grading.runtime import Runner
from weighin.grading.score import Cost

IN_PLACE = {
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("Tanh", "Softplus", "Softsign", "Mish", "Erf", "Gelu", "Abs", "Neg", "Sqrt", "Exp", "Log"),
    *("Reciprocal", "Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
    "QuantizeLinear",
}
MOST_WORK = 2**22  # beginnings of an order that are compared, times the operators
Step = tuple[frozenset[str], frozenset[str]]  # the buffers that an operator reads and writes
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
WIDTHS = {  # bits of a number; others have 32
    **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8), 8),
    **dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16), 16),
    TensorProto.DOUBLE: 64,
}
SIZES = {"Resize": (1, 2), "Upsample": (1,)}  # inputs that say how large a result is, in floats
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
    """A model's work on one image, or on what `of` says, and its size."""

    macs: int
    parameters: int
    parameter_bits: int
    unpriced: int
    layers: tuple[Layer, ...]
    unknown: tuple[str, ...] = ()  # operators that are not listed in operators.py
    of: str = "one image"


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
    work = {name: (kind.macs, kind.unpriced) for name, kind in OPERATORS.items()}
    work |= {name: (macs, lambda node: 0) for name, (macs, _) in INTEGER.items()}
    listed, stored = [node for node in graph.nodes if node.op in work], parameters(graph)
    layers = tuple(
        Layer(printable(node.name), node.op, node.outputs[0], macs(node), unpriced(node), node.bits)
        for node in listed
        for macs, unpriced in [work[node.op]]
    )
    return Count(
        macs=sum(layer.macs for layer in layers),
        parameters=sum(prod(t.dims) for t in stored),
        parameter_bits=sum(
            prod(tensor.dims) * WIDTHS.get(tensor.data_type, 32) for tensor in stored
        ),
        unpriced=sum(layer.unpriced for layer in layers),
        layers=layers,
        unknown=tuple(sorted({node.op for node in graph.nodes} - work.keys())),
    )


def count_file(path: Path) -> Count:
    """Return what the graph in an ONNX file does on one image, or in a whole run (`Count.of`).

    A file with a contract is checked as for grading, and its shapes are compared with those of a
    run. Of any other the graph and its shapes are all that is needed: it may have other inputs, a
    fixed batch, weights in another file, and operators that the rule gives 0 (`Count.unknown`
    names them).

    Raises:
        ModelError: a shape stays unknown; an operator multiplies that the rule does not name, or a
            branch or a loop does; or the file has a contract and is not gradable.
        HiddenWorkError: as `recount`.
    """
    path = Path(path)
    data = read(path)
    with damage_told(path):
        proto = parse(data, values=False)
        if not _has_contract(proto):
            check_valid(proto)
            for node in proto.graph.node:
                if node.op_type in UNRULED:
                    problem = "it multiplies, and the contest's rule has no line for it"
                    raise refused(node.op_type, called(node), problem)
                held = chain.from_iterable(operators(g.node) for g in graphs_of(node))
                if inner := sorted({part.op_type for part in held} & MULTIPLIES):
                    problem = f"it decides while it runs how often {', '.join(inner)} is done"
                    raise refused(node.op_type, called(node), problem)
            graph, what = _free_graph(proto)
            return replace(count(graph), of=what)
    model = open_model(path)
    found = counted(model, path)  # first: what hides work may run for hours
    Runner(model).check(np.zeros((1, *model.size, 3), np.uint8))
    return found


def _has_contract(proto: Any) -> bool:
    """Whether a file says what its outputs mean, as a contract does: others have `classes` too."""
    said = {entry.key: entry.value for entry in proto.metadata_props}
    return "fallback" in said and said.get("classes", "").lstrip().startswith("[")


def _free_graph(proto: Any) -> tuple[StaticGraph, str]:
    """Return the graph of any file, and what its count is of.

    Images are inputs of four sides. Work is that of one of them where they have one fixed batch
    (some may have 1) and every output has it too; a free batch is 1.
    """
    if proto.graph.sparse_initializer:
        raise ModelError("it stores sparse tensors, whose work is not known", "store them whole")
    check_sides(proto.graph)
    shapes = [
        [max(0, side.dim_value) for side in value.type.tensor_type.shape.dim]
        for value in inputs_of(proto.graph)
    ]
    batches = {sides[0] for sides in shapes if len(sides) == 4}
    many = max(batches, default=0)
    if many > 1 and batches <= {1, many}:
        graph = static_graph(proto, many, strict=False)
        results = (graph.shapes.get(value.name, ()) for value in proto.graph.output)
        if all(shape[:1] == (many,) for shape in results):
            return graph, f"one of {many:,} images"
    free = any(sides[:1] == [0] for sides in shapes)
    run = "a run with a batch of 1" if free else "the whole run"
    return static_graph(proto, 1, strict=False), "one image" if batches and many < 2 else run


def counted(model: Model, path: Path) -> Count:
    """Return `recount(model)`, its errors naming the file that the model is from."""
    try:
        return recount(model)
    except WeighinError as error:
        raise type(error)(f"{path}: {error.problem}", error.fix) from None


def cost(model: Model) -> Cost:
    """Return what a checked model costs."""
    return file_cost(model.graph, count(model.graph), model.bytes)


def file_cost(graph: StaticGraph, found: Count, size: int) -> Cost:
    """Return what the graph in a file of so many bytes costs."""
    return Cost(
        found.macs,
        found.parameters,
        peak_memory(graph),
        size,
        found.parameter_bits,
        sum(layer.macs * layer.bits for layer in found.layers),
    )


def parameters(graph: StaticGraph) -> list[Any]:
    """Return the stored tensors that are parameters, but for single numbers and sizes (`SIZES`).

    Values are floats, or the whole numbers of DequantizeLinear and of `INTEGER`: quantized weights
    and biases, to which their scales by channel are added. Zero points of zeros are none.
    """
    nodes, tensors = graph.proto.graph.node, graph.proto.graph.initializer
    places = {"DequantizeLinear": (0,)} | {name: places for name, (_, places) in INTEGER.items()}
    whole, sizes = (
        {n.input[k] for n in nodes for k in of.get(n.op_type, ()) if k < len(n.input)}
        for of in (places, SIZES)
    )
    counted = (t for t in tensors if t.data_type in FLOATS or t.name in whole)
    return [t for t in counted if len(t.dims) and t.name not in sizes]


def peak_memory(graph: StaticGraph) -> int:
    """Return the bytes that the activations of one image need at once, in the best order.

    Orders are tried lowest peak first, and those that have done the same operators are one. Where
    there are too many (`MOST_WORK`) it is the peak of the file's order.
    """
    sizes, steps = _buffers(graph)
    owners = _owners(graph)
    kept = {owners[value.name] for value in graph.proto.graph.output}
    writer = {name: 1 << k for k, (_, written) in enumerate(steps) for name in written}
    readers: dict[str, int] = {}  # bit sets of steps, as `needs`, `done` and `ready` are
    for k, (inputs, _) in enumerate(steps):
        for name in inputs:
            readers[name] = readers.get(name, 0) | 1 << k
    needs = [sum({writer.get(name, 0) for name in inputs}) for inputs, _ in steps]

    def do(step: int, done: int, live: int) -> tuple[int, int, int]:
        """Return the bytes that a step needs, and what is done and live behind it."""
        inputs, written = steps[step]
        needed, done = live + sum(sizes[name] for name in written), done | 1 << step
        dead = (n for n in inputs | written if n not in kept and not readers.get(n, 0) & ~done)
        return needed, done, needed - sum(sizes[name] for name in dead)

    live = sum(sizes[n] for n in sizes if n not in writer and (n in kept or n in readers))
    ready = sum(1 << k for k, need in enumerate(needs) if not need)
    queue, seen, tried = [(0, 0, 0, live, ready)], set[int](), 0
    while queue and tried * len(steps) < MOST_WORK:
        peak, left, done, before, ready = heapq.heappop(queue)
        if not ready:
            return peak
        if done in seen:
            continue
        seen.add(done)
        for step in _places(ready):
            needed, behind, after = do(step, done, before)
            reached = (k for n in steps[step][1] for k in _places(readers.get(n, 0)))
            freed = {1 << k for k in reached if not needs[k] & ~behind}
            then = sum(freed) | ready & ~(1 << step)
            heapq.heappush(queue, (max(peak, needed), left - 1, behind, after, then))
            tried += 1
    peak, done = 0, 0
    for step in range(len(steps)):
        needed, done, live = do(step, done, live)
        peak = max(peak, needed)
    return peak


def _places(bits: int) -> list[int]:
    """Return the places of the ones in a number."""
    return [k for k, bit in enumerate(reversed(f"{bits:b}")) if bit == "1"]


def _owners(graph: StaticGraph) -> dict[str, str]:
    """Return the tensor whose memory each activation has: its own, or that of what it replaces."""
    readers = Counter(name for node in graph.proto.graph.node for name in set(node.input))
    owners = {name: name for name in graph.shapes}
    for node in graph.proto.graph.node:
        live = [name for name in node.input if name in owners]
        alone = node.op_type in IN_PLACE and len(live) == 1 and readers[live[0]] == 1
        if live and (alone or node.op_type == "DequantizeLinear"):
            owners[node.output[0]] = owners[live[0]]
    return owners


def _buffers(graph: StaticGraph) -> tuple[dict[str, int], list[Step]]:
    """Return the bytes of each buffer, and the operators that need another one than they read."""
    nodes, owners = graph.proto.graph.node, _owners(graph)
    eight = {owners[n.output[0]] for n in nodes if n.op_type == "QuantizeLinear"}
    sizes: dict[str, int] = {}
    for name, owner in owners.items():
        size = prod(graph.shapes[name][1:]) * (1 if owner in eight else 4)
        sizes[owner] = max(size, sizes.get(owner, 0))
    steps = [
        (
            frozenset(owners[name] for name in node.input if name in owners),
            frozenset(owners[name] for name in node.output if name in owners),
        )
        for node in nodes
    ]
    return sizes, [(inputs, written - inputs) for inputs, written in steps if written - inputs]
