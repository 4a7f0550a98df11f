"""The shapes that rearrangements make, and the whole-number arithmetic that leads to them.

Exporters compute the shape of a reshape from the batch: Shape, Gather, Concat and their kin run on
a handful of whole numbers, and are worked out here with NumPy.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from weighin.grading.nodes import Fact, Node, Shape, activation, whole

MAX_INTS = 1024
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.floor_divide,
}


def shape(node: Node) -> list[Fact]:
    """Return the sides of an activation, or those from `start` to `end`."""
    sides = list(node.data())
    first, last = node.attributes.get("start", 0), node.attributes.get("end", len(sides))
    return [whole(sides[first:last])]


def on_ints(node: Node) -> list[Fact]:
    """Return the value of an operator whose every input is whole numbers."""
    values = [fact.ints for fact in node.inputs if fact is not None and fact.ints is not None]
    if sum(value.size for value in values) > MAX_INTS:
        raise node.fail("more whole numbers than a shape needs")
    try:
        return [whole(_compute(node, values))]
    except (ValueError, IndexError, TypeError, ZeroDivisionError, FloatingPointError):
        raise node.fail("its whole numbers do not fit together") from None


def _compute(node: Node, values: list[Any]) -> Any:
    first = values[0]
    axis = node.attributes.get("axis", 0)
    if node.op in ARITHMETIC:
        with np.errstate(all="raise"):
            return ARITHMETIC[node.op](first, values[1])
    if node.op == "Concat":
        return np.concatenate(values, axis=axis)
    if node.op == "Gather":
        return np.take(first, values[1], axis=axis)
    if node.op == "Unsqueeze":
        return np.expand_dims(first, tuple(node.ints(1, "axes")))
    if node.op == "Squeeze":
        return np.squeeze(first, tuple(node.ints(1, "axes")))
    if node.op == "Slice":
        return first[_slice(node)]
    if node.op in ("Cast", "Identity"):
        return first
    raise node.fail("it is not known on whole numbers")


def _slice(node: Node) -> slice:
    start, stop, step = (
        node.ints(i, name, [1]) for i, name in ((1, "starts"), (2, "ends"), (4, ""))
    )
    return slice(start[0], stop[0], step[0])


def concat(node: Node) -> list[Fact]:
    """Return activations joined along an axis that is not the batch."""
    shapes = [node.data(i) for i in range(len(node.inputs))]
    axis = node.axis(node.attributes["axis"], len(shapes[0]))
    others = {sides[:axis] + sides[axis + 1 :] for sides in shapes}
    if len(others) != 1:
        raise node.fail(f"{shapes} do not join along axis {axis}")
    return [_with(shapes[0], axis, sum(sides[axis] for sides in shapes))]


def split(node: Node) -> list[Fact]:
    """Return the pieces of an activation along an axis that is not the batch."""
    data = node.data()
    axis = node.axis(node.attributes.get("axis", 0), len(data))
    piece = -(-data[axis] // node.outputs)
    last = data[axis] - piece * (node.outputs - 1)
    sizes = node.ints(1, "split", [piece] * (node.outputs - 1) + [last])
    if len(sizes) != node.outputs or min(sizes) < 1 or sum(sizes) != data[axis]:
        raise node.fail(f"pieces of {sizes} do not make {data[axis]}")
    return [_with(data, axis, size) for size in sizes]


def slice_(node: Node) -> list[Fact]:
    """Return part of an activation along axes that are not the batch."""
    data = node.data()
    starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
    axes = node.ints(3, "axes", list(range(len(starts))))
    steps = node.ints(4, "steps", [1] * len(starts))
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.fail("its starts, ends, axes and steps do not fit together")
    result = activation(*data)
    for start, end, given, step in zip(starts, ends, axes, steps, strict=True):
        axis = node.axis(given, len(data))
        side = len(range(data[axis])[slice(start, end, step)])
        result = _with(result.shape, axis, side)
    return _not_empty(node, result)


def gather(node: Node) -> list[Fact]:
    """Return chosen places of an activation along an axis that is not the batch."""
    data = node.data()
    axis = node.axis(node.attributes.get("axis", 0), len(data))
    indices = node.inputs[1]
    if indices is None or indices.ints is None or indices.ints.size > data[axis]:
        raise node.fail("its places are not known before it runs, or repeat")
    if (
        indices.ints.size
        and not -data[axis] <= indices.ints.min() <= indices.ints.max() < data[axis]
    ):
        raise node.fail("its places lie outside its input")
    return _not_empty(node, activation(*data[:axis], *indices.shape, *data[axis + 1 :]))


def reshape(node: Node) -> list[Fact]:
    """Return the same elements in another shape whose first axis is still the batch."""
    data, target = node.data(), node.ints(1, "shape")
    if not node.attributes.get("allowzero", 0):
        if any(side == 0 for side in target[len(data) :]):
            raise node.fail(f"{target} does not fit {data}")
        target = [data[i] if side == 0 else side for i, side in enumerate(target)]
    if target.count(-1) == 1:
        known = -prod(target)
        target = [prod(data) // known if side == -1 and known > 0 else side for side in target]
    if min(target, default=0) < 1 or prod(target) != prod(data) or target[0] != data[0]:
        raise node.fail(f"{data} does not become {target} with the batch first")
    return [activation(*target)]


def transpose(node: Node) -> list[Fact]:
    """Return the axes in another order, the batch staying first."""
    data = node.data()
    order = node.attributes.get("perm", list(range(len(data)))[::-1])
    if sorted(order) != list(range(len(data))) or order[0] != 0:
        raise node.fail(f"the order {order} moves the batch")
    return [activation(*(data[i] for i in order))]


def flatten(node: Node) -> list[Fact]:
    """Return (N, everything else)."""
    data = node.data()
    if node.axis(node.attributes.get("axis", 1), len(data)) != 1:
        raise node.fail("it mixes the batch with other axes")
    return [activation(data[0], prod(data[1:]))]


def squeeze(node: Node) -> list[Fact]:
    """Return the shape without axes of length 1, which must be named."""
    data = node.data()
    axes = {node.axis(axis, len(data)) for axis in node.ints(1, "axes")}
    if any(data[axis] != 1 for axis in axes):
        raise node.fail(f"{data} has no length 1 at {sorted(axes)}")
    return [activation(*(side for i, side in enumerate(data) if i not in axes))]


def unsqueeze(node: Node) -> list[Fact]:
    """Return the shape with further axes of length 1."""
    data, given = node.data(), node.ints(1, "axes")
    axes = {node.axis(axis, len(data) + len(given)) for axis in given}
    if len(axes) != len(given):
        raise node.fail("it names an axis twice")
    rest = iter(data)
    rank = len(data) + len(given)
    return [activation(*(1 if i in axes else next(rest) for i in range(rank)))]


def pad(node: Node) -> list[Fact]:
    """Return the shape with a border of constant values."""
    data, pads = node.data(), node.ints(1, "pads")
    rank = len(data)
    if node.has(3) or len(pads) != 2 * rank or not 0 <= min(pads) <= max(pads) <= 4096:
        raise node.fail("its borders do not fit its input")
    if pads[0] or pads[rank]:
        raise node.fail("it adds images")
    return [activation(*(side + pads[i] + pads[rank + i] for i, side in enumerate(data)))]


def reduce(node: Node) -> list[Fact]:
    """Return the shape with the named axes, never the batch, at length 1 or gone."""
    data = node.data()
    axes = {node.axis(axis, len(data)) for axis in node.ints(1, "axes")}
    if node.attributes.get("keepdims", 1):
        return [activation(*(1 if i in axes else side for i, side in enumerate(data)))]
    return [activation(*(side for i, side in enumerate(data) if i not in axes))]


def _with(sides: Shape, axis: int, side: int) -> Fact:
    return activation(*sides[:axis], side, *sides[axis + 1 :])


def _not_empty(node: Node, fact: Fact) -> list[Fact]:
    if prod(fact.shape) < 1:
        raise node.fail("nothing is left")
    return [fact]
