"""The shapes that layers make: convolutions, pooling, matrix products, elementwise functions.

N is the batch, C and M channels, H and W sides in pixels. Each rule refuses what it does not know.
"""

from math import prod

from weighin.grading.nodes import Fact, Node, Shape, activation


def conv(node: Node) -> list[Fact]:
    """Return (N, M, H', W') of a 2-d convolution."""
    data, weight = node.data(), node.weight(1)
    groups = node.attributes.get("group", 1)
    if len(data) != 4 or len(weight) != 4:
        raise node.fail("only two-dimensional convolutions are counted")
    if groups < 1 or weight[1] * groups != data[1] or weight[0] % groups:
        raise node.fail(f"a weight of {weight} in {groups} groups does not fit {data}")
    if node.attributes.get("kernel_shape", list(weight[2:])) != list(weight[2:]):
        raise node.fail("its kernel_shape is not its weight's")
    if node.has(2) and node.weight(2) != weight[:1]:
        raise node.fail("its bias does not fit its weight")
    return [activation(data[0], weight[0], *_window(node, data, list(weight[2:])))]


def pool(node: Node) -> list[Fact]:
    """Return (N, C, H', W') of a 2-d pooling."""
    data = node.data()
    if len(data) != 4:
        raise node.fail("only two-dimensional pooling is counted")
    return [activation(*data[:2], *_window(node, data, node.ints(9, "kernel_shape")))]


def _window(node: Node, data: Shape, kernel: list[int]) -> list[int]:
    get = node.attributes.get
    if get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.fail("auto_pad is not counted; give pads")
    strides, dilations, pads = (
        get("strides", [1, 1]),
        get("dilations", [1, 1]),
        get("pads", [0] * 4),
    )
    values = [*kernel, *strides, *dilations]
    if (len(kernel), len(strides), len(dilations), len(pads)) != (2, 2, 2, 4):
        raise node.fail("its window is not two-dimensional")
    if min(values) < 1 or min(pads) < 0 or max(*values, *pads) > 4096:
        raise node.fail("absurd window")
    sides = []
    for i in (0, 1):
        room = data[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (kernel[i] - 1) - 1
        steps = room // strides[i]
        if (
            get("ceil_mode", 0)
            and room % strides[i]
            and (steps + 1) * strides[i] < data[2 + i] + pads[i]
        ):
            steps += 1
        sides.append(steps + 1)
        if room < 0:
            raise node.fail("its window is larger than its input")
    return sides


def global_pool(node: Node) -> list[Fact]:
    """Return (N, C, 1, 1)."""
    data = node.data()
    if len(data) != 4:
        raise node.fail("only two-dimensional pooling is counted")
    return [activation(*data[:2], 1, 1)]


def batch_norm(node: Node) -> list[Fact]:
    """Return the input's shape; the four stored vectors are (C,)."""
    data = node.data()
    if any(node.weight(i) != data[1:2] for i in range(1, 5)) or node.attributes.get(
        "training_mode"
    ):
        raise node.fail("its statistics do not fit, or are taken from the test images")
    return [activation(*data)]


def gemm(node: Node) -> list[Fact]:
    """Return (N, M) of (N, K) times a stored (K, M), or (M, K) with transB."""
    data, weight = node.data(), node.weight(1)
    if len(data) != 2 or len(weight) != 2 or node.attributes.get("transA", 0):
        raise node.fail("only (batch, K) times a stored matrix is counted")
    inner, outer = weight[::-1] if node.attributes.get("transB", 0) else weight
    if inner != data[1]:
        raise node.fail(f"a weight of {weight} does not fit {data}")
    if node.has(2) and node.weight(2) not in ((outer,), (1, outer), ()):
        raise node.fail("its bias does not fit its weight")
    return [activation(data[0], outer)]


def matmul(node: Node) -> list[Fact]:
    """Return (N, ..., A, C) of (N, ..., A, B) times (N, ..., B, C) or a stored (B, C)."""
    data = node.data()
    second = node.inputs[1]
    if second is None or second.kind == "ints":
        raise node.fail("input 1 is not a matrix")
    other = second.shape
    batched = second.kind == "activation"
    fits = other[:-2] == data[:-2] and len(data) > 2 if batched else len(other) == 2
    if len(data) < 2 or not fits or data[-1] != other[-2]:
        raise node.fail(f"{data} times {other} is not counted")
    return [activation(*data[:-1], other[-1])]


def same(node: Node) -> list[Fact]:
    """Return the shape of input 0, for what works on each element alone."""
    return [activation(*node.data())]


def identity(node: Node) -> list[Fact]:
    """Return input 0 as it is."""
    if not node.has(0):
        raise node.fail("it has no input")
    return [fact for fact in node.inputs[:1] if fact is not None]


def prelu(node: Node) -> list[Fact]:
    """Return the shape of input 0; the slope is stored and no larger."""
    data = node.data()
    _broadcast(node, data, Fact(node.weight(1), "weight"))
    return [activation(*data)]


def softmax(node: Node) -> list[Fact]:
    """Return the shape of input 0; never along the batch."""
    data = node.data()
    node.axis(node.attributes.get("axis", -1), len(data))
    return [activation(*data)]


def binary(node: Node) -> list[Fact]:
    """Return the broadcast shape, which must be that of one of the two: no outer products."""
    facts = [fact for fact in node.inputs if fact is not None]
    if len(facts) != 2 or any(fact.kind == "ints" for fact in facts):
        raise node.fail("it needs two tensors of numbers")
    live = [fact for fact in facts if fact.kind == "activation"]
    if not live:
        raise node.fail("it computes weights; store them instead")
    whole = max(live, key=lambda fact: prod(fact.shape))
    for fact in facts:
        _broadcast(node, whole.shape, fact)
    return [activation(*whole.shape)]


def _broadcast(node: Node, shape: Shape, other: Fact) -> None:
    """Check that `other` broadcasts to `shape`, an activation's, without touching its batch."""
    small = other.shape
    same_rank = other.kind == "weight" or len(small) == len(shape)
    padded = (1,) * (len(shape) - len(small)) + small
    fits = all(b in (1, a) for a, b in zip(shape, padded, strict=False))
    free_batch = other.kind == "activation" or padded[:1] == (1,)
    if len(small) > len(shape) or not (same_rank and fits and free_batch):
        raise node.fail(f"{small} does not broadcast to {shape}")
