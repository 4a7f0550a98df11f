"""What the runtime itself says of a file: the MACs of the shapes that it produced.

Independent of the grader on purpose: the file as it is, every intermediate result fetched, and the
contest's rule applied to what came out.
"""

from math import prod
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")


def measured_macs(data: bytes, batch: int) -> int:
    """Return the MACs of one image of a batch, from the shapes of a run of the file."""
    model = onnx.load_from_string(data)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    images = np.random.default_rng(0).random((batch, *sides[1:]), np.float32)
    values = dict(zip(names, session.run(None, {"images": images}), strict=True))
    values["images"] = images
    values |= {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return sum(_macs(node, values) for node in model.graph.node) // batch


def _macs(node: Any, values: dict[str, Any]) -> int:
    inputs = [values[name].shape for name in node.input if name]
    if not inputs or values[node.output[0]].dtype != np.float32:
        return 0
    out = prod(values[node.output[0]].shape)
    if node.op_type == "Conv":
        return (prod(inputs[1][1:]) + (len(inputs) > 2)) * out
    if node.op_type in ("Gemm", "MatMul"):
        return (inputs[0][-1] + (len(inputs) > 2)) * out
    if node.op_type == "BatchNormalization":
        return 2 * out
    return prod(inputs[0]) if node.op_type in POOLS else 0
