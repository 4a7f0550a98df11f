"""The least memory that a graph's activations need at once: what a microcontroller runs out of.

Weights stay in flash; what is counted is RAM for one image, each tensor whole. An operator needs
its inputs and outputs together, and a tensor lives until its last reader is done; the order of the
operators is the best that there is (Lin et al., "MCUNet: tiny deep learning on IoT devices",
NeurIPS 2020, count the same way). Number by number functions work in place. In a quantized graph a
tensor between operators has 8 bits: QuantizeLinear is part of the operator before it,
DequantizeLinear of the one behind.
"""

import heapq
from collections import Counter
from math import prod

from weighin.grading.graph import StaticGraph

IN_PLACE = {
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("Tanh", "Softplus", "Softsign", "Mish", "Erf", "Gelu", "Abs", "Neg", "Sqrt", "Exp", "Log"),
    *("Reciprocal", "Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
    "QuantizeLinear",
}
MOST_STATES = 20_000  # orders that are compared, up to those that have done the same
Step = tuple[frozenset[str], frozenset[str]]  # the buffers that an operator reads and writes


def peak_memory(graph: StaticGraph) -> int:
    """Return the bytes that the activations of one image need at once, in the best order.

    Where more than `MOST_STATES` orders would have to be compared it is that of the file's order.
    """
    sizes, steps = _buffers(graph)
    kept = frozenset(_owners(graph)[value.name] for value in graph.proto.graph.output)
    given = frozenset(sizes) - frozenset().union(*(written for _, written in steps))

    def needed(done: int, step: int) -> int:
        """Return the bytes that one step needs after the steps in the bit set `done`."""
        made, wanted = set(given), set(kept)
        for k, (read, written) in enumerate(steps):
            if done >> k & 1:
                made |= written
            else:
                wanted |= read
        return sum(sizes[name] for name in (made & wanted) | steps[step][0] | steps[step][1])

    everything, queue, seen = (1 << len(steps)) - 1, [(0, 0, 0)], set[int]()
    while queue and len(seen) < MOST_STATES:
        peak, _, done = heapq.heappop(queue)
        if done == everything:
            return peak
        if done in seen:
            continue
        seen.add(done)
        made = given.union(*(steps[k][1] for k in range(len(steps)) if done >> k & 1))
        for k, (read, _) in enumerate(steps):
            if not done >> k & 1 and read <= made:
                after = done | 1 << k
                heapq.heappush(queue, (max(peak, needed(done, k)), -after.bit_count(), after))
    return max(needed((1 << k) - 1, k) for k in range(len(steps)))


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
    return sizes, [(read, written) for read, written in steps if written - read]
