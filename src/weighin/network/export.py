"""A network as an ONNX file, the same bytes from any process; and what the file will cost.

Uses torch's TorchScript exporter: the newer one writes source paths into the file.
"""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from weighin.determinism import generator
from weighin.files import write_bytes
from weighin.grading.graph import static_graph
from weighin.grading.recount import count, file_cost
from weighin.grading.score import Cost, needs_file
from weighin.images import Size
from weighin.network.build import Ranks, build, initialize
from weighin.network.cost import cost, fold_batch_norms
from weighin.network.quantized import INPUT, quantized
from weighin.network.spec import NetworkSpec
from weighin.params import Contest, Quantize

OPSET = 17
OUTPUT, BATCH = "logits", "N"


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


def exported_cost(
    spec: NetworkSpec,
    classes: Sequence[str],
    knobs: Quantize,
    ranks: Ranks | None = None,
) -> Cost:
    """Return what the file of a network costs, with every layer in 8 bits if `knobs.enabled`.

    The graph is exported (and quantized) as it will be, of arbitrary weights, and counted as it is
    graded; none of the counts depends on a weight. `bytes` may be over by a few: of the class that
    the file names for unreadable images, the longest name is counted.

    Raises:
        NetworkError: as `cost`.
    """
    module = build(spec, len(classes), ranks)
    initialize(module, "cost")
    with torch.no_grad():
        for name, array in [*module.named_parameters(), *module.named_buffers()]:
            if array.ndim == 1:  # no two alike: equal arrays would be stored once
                values = generator("cost", name).uniform(0.5, 1.5, len(array))
                array.copy_(torch.from_numpy(values.astype(np.float32)))
    data = onnx_bytes(
        module,
        spec.input,
        file_metadata(classes, max(classes, key=lambda name: len(name.encode())), False),
    )
    if knobs.enabled:
        sample = generator("cost").integers(0, 256, (1, *spec.input, 3)).astype(np.uint8)
        data = quantized(onnx.load_model_from_string(data), sample, knobs)
    graph = static_graph(onnx.load_model_from_string(data), 1)
    return file_cost(graph, count(graph), len(data))


def file_metadata(classes: Sequence[str], fallback: str, turn_tall: bool) -> dict[str, str]:
    """Return what an exported file says of its images and labels (grading/contract.py)."""
    names = json.dumps(classes, ensure_ascii=False)
    return {"classes": names, "fallback": fallback, "turn_tall": json.dumps(turn_tall)}


def contest_cost(
    spec: NetworkSpec,
    classes: Sequence[str],
    contest: Contest,
    knobs: Quantize,
    ranks: Ranks | None = None,
    axis: str = "macs",
) -> Cost:
    """Return the costs of a network that its contest or the `axis` of a search asks for.

    Those of a file take a second, and are not counted of a network over `contest.max_macs`.

    Raises:
        NetworkError: as `cost`.
    """
    found = cost(spec, len(classes), ranks)
    asked = needs_file(contest, knobs.enabled) or axis not in ("macs", "parameters")
    if not asked or found.macs > contest.max_macs:
        return found
    return exported_cost(spec, classes, knobs, ranks)
