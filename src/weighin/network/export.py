"""A trained network as an ONNX file: norms folded, the same bytes from any process.

A batch norm is folded into the convolution before it: the same outputs for fewer MACs, for a norm
over n numbers counts 2n by the rule, and the bias that replaces it counts n.

Uses torch's TorchScript exporter: the newer one writes source paths into the file.
"""

import copy
import io
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.fx import symbolic_trace

from weighin.files import write_bytes
from weighin.images import Size

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


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Return a copy of `module`, in eval mode, each Conv2d's BatchNorm2d folded into it.

    With scale = gamma / sqrt(var + eps) of the norm, the weight becomes weight * scale and the bias
    (bias - mean) * scale + beta, in float64. A norm that follows anything but a convolution of its
    own stays. Folded norms become nn.Identity, so that paths stay what they were.
    """
    folded = copy.deepcopy(module).eval()
    for conv_path, norm_path in foldable_norms(folded):
        conv, norm = folded.get_submodule(conv_path), folded.get_submodule(norm_path)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        _fold(conv, norm)
        folded.set_submodule(norm_path, nn.Identity())
    return folded


def foldable_norms(module: nn.Module) -> list[tuple[str, str]]:
    """Return (convolution, norm) paths where the norm alone reads the convolution's output.

    Both are called once: a layer that is used twice cannot absorb one use's norm.
    """
    graph = symbolic_trace(module).graph
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, torch.fx.Node) or before.op != "call_module":
            continue
        names = str(before.target), str(node.target)
        conv, norm = (module.get_submodule(name) for name in names)
        alone = len(before.users) == 1 and all(calls[name] == 1 for name in names)
        if alone and type(conv) is nn.Conv2d and _is_fixed(norm):
            pairs.append(names)
    return pairs


def _is_fixed(norm: nn.Module) -> bool:
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    if conv.weight.is_meta:
        conv.bias = nn.Parameter(torch.empty(conv.out_channels, device="meta"))
        return
    # NumPy's sqrt is IEEE's; torch's differs between processors' instruction sets
    mean, var = _float64(norm.running_mean), _float64(norm.running_var)
    scale = 1 / np.sqrt(var + norm.eps)
    shift = -mean * scale
    if norm.affine:
        gamma = _float64(norm.weight)
        scale, shift = gamma * scale, gamma * shift + _float64(norm.bias)
    if conv.bias is not None:
        shift = shift + _float64(conv.bias) * scale
    weight = _float64(conv.weight) * scale.reshape(-1, 1, 1, 1)
    conv.weight = _parameter(weight)
    conv.bias = _parameter(shift)


def _float64(tensor: torch.Tensor | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    assert tensor is not None
    return tensor.detach().double().numpy()


def _parameter(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(values.astype(np.float32)))
