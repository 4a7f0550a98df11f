"""A trained network as an ONNX file: norms folded, the same bytes from any process.

Uses torch's TorchScript exporter: the newer one writes source paths into the file.
"""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from weighin.files import write_bytes
from weighin.images import Size
from weighin.network.folding import fold_batch_norms

OPSET = 17
INPUT, OUTPUT, BATCH = "images", "logits", "N"


def export_onnx(module: nn.Module, size: Size, path: Path, metadata: Mapping[str, str]) -> None:
    """Write `module` to `path` as ONNX, whole or not at all.

    The graph maps `images`, float32 (N, 3, H, W) of any N, to `logits` (N, classes). `metadata`
    becomes the file's metadata_props, sorted by key.

    Raises:
        OutputError: `path` cannot be written.
    """
    write_bytes(path, onnx_bytes(module, size, metadata))


def onnx_bytes(module: nn.Module, size: Size, metadata: Mapping[str, str]) -> bytes:
    """Return the bytes that `export_onnx` writes."""
    model = onnx.load_from_string(_exported(fold_batch_norms(module), size))
    _fold_constants(model.graph)
    model.producer_name, model.producer_version, model.doc_string = "weighin", "", ""
    for node in model.graph.node:
        node.doc_string = ""
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Compute, once and here, every node that depends on stored numbers alone.

    The exporter leaves the sums of a padding's sizes, and one Identity for each weight that equals
    another, in the graph.
    """
    known = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if any(name and name not in known for name in node.input):
            kept.append(node)
            continue
        feeds = {name: onnx.numpy_helper.to_array(known[name]) for name in node.input if name}
        values = ReferenceEvaluator(node).run(None, feeds)
        for name, value in zip(node.output, values, strict=True):
            known[name] = onnx.numpy_helper.from_array(value, name)
    used = {name for node in kept for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for name, tensor in known.items() if name in used)


def _exported(module: nn.Module, size: Size) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        # every one of them is about the exporter being the older one
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, *size),),
            out,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: BATCH}, OUTPUT: {0: BATCH}},
        )
    return out.getvalue()
