"""The quantize stage: the exported network in whole numbers of 8 bits, the same on every processor.

ONNX Runtime's own static quantizer writes a QDQ graph: float32 operators between QuantizeLinear
and DequantizeLinear, which the runtime replaces by integer kernels. Activations are uint8 by
tensor, weights int8 by output channel, biases int32; real = scale (q - zero_point), as in Jacob et
al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018.

Exactness. Without VNNI a kernel adds two products of uint8 and int8 in 16 bits, and saturates:
2 * 255 * 127 = 64,770 is over 32,767. Weights within 64 (7 bits) give at most 2 * 255 * 64 =
32,640, so every sum is the exact whole number, in any order, on any processor. The portability
tests show both: equal logits with 7 bits, other ones with 8.
"""

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from scipy.special import log_softmax

from weighin.data.pack import read_packed
from weighin.determinism import generator
from weighin.errors import ModelError
from weighin.files import write_bytes, write_json, write_npy
from weighin.grading.f1 import confusion_of_indices
from weighin.grading.model import open_model
from weighin.grading.runtime import Logits, Runner, run, session
from weighin.images import Pixels, normalize
from weighin.params import Params, Quantize
from weighin.progress import Progress, say

WEIGHTED = ("Conv", "Gemm", "MatMul")
CHUNK = 64  # images at once
LARGEST = 64  # magnitude of a weight: see above
MARK = ("onnx.quant.pre_process", "onnxruntime.quant")  # or the quantizer advises to prepare


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer with weights, and the divergence (nats) of the labels if it alone is quantized."""

    name: str
    op: str
    weights: int
    divergence: float
    quantized: bool = True


def quantize(packed: Path, source: Path, params: Params, out: Path, model_path: Path) -> None:
    """Write the ONNX file `source` in 8 bits to `model_path`; as it is where that is switched off.

    Layers stay in float, those that change the labels most first, until the F1 lost on the
    validation split is at most `quantize.max_loss`. Into the folder `out` go quantization.json (the
    layers and both networks' F1) and the exported file's logits on the validation split
    (validation_logits.npy).

    Raises:
        ModelError: `source` cannot be graded, or nothing of it can be quantized.
    """
    if not source.is_file():
        raise ModelError(f"{source} does not exist", "run `dvc repro finetune`")
    knobs, data = params.quantize, source.read_bytes()
    if not knobs.enabled:
        write_bytes(model_path, data)
        write_json(out / "quantization.json", {"enabled": False})
        return
    model = open_model(source)
    proto, sample = onnx.load_model_from_string(data), _sample(packed, model.size, params)
    held = read_packed(packed, "validation", model.size)
    truth, images = held.labels, np.asarray(held.images)
    before = confusion_of_indices(truth, Runner(model).logits(images).argmax(1), held.classes).f1
    layers = sensitivity(proto, sample, knobs)
    ranked = sorted(layers, key=lambda layer: -layer.divergence)
    for count in range(len(ranked) + 1):
        kept = {layer.name for layer in ranked[:count]}
        made = quantized(proto, sample, knobs, kept)
        write_bytes(model_path, made)
        logits = Runner(open_model(model_path)).logits(images)
        after = confusion_of_indices(truth, logits.argmax(1), held.classes).f1
        if before - after <= knobs.max_loss:
            break
    say(
        f"quantize  F1 {before:.4f} -> {after:.4f}, {len(data):,} -> {len(made):,} bytes; "
        f"{count} of {len(layers)} layers stay float"
    )
    rows = [asdict(replace(layer, quantized=layer.name not in kept)) for layer in layers]
    figures = {"f1_before": round(before, 6), "f1_after": round(after, 6)}
    sizes = {"bytes_before": len(data), "bytes_after": len(made)}
    write_npy(out / "validation_logits.npy", logits)
    write_json(out / "quantization.json", {"enabled": True, **figures, **sizes, "layers": rows})


def sensitivity(proto: Any, sample: Pixels, knobs: Quantize) -> list[QuantizedLayer]:
    """Return what quantizing each layer alone does to the labels of the sample.

    Raises:
        ModelError: the graph has no layer with weights.
    """
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = [n for n in proto.graph.node if n.op_type in WEIGHTED and n.input[1] in stored]
    if not nodes:
        raise ModelError(
            "it has no convolution or linear layer to quantize", "quantize.enabled: false"
        )
    own = log_softmax(_logits(proto, sample), axis=1)
    found, progress = [], Progress("quantize", len(nodes))
    for node in nodes:
        others = {other.name for other in proto.graph.node} - {node.name}
        alone = onnx.load_model_from_string(quantized(proto, sample, knobs, others))
        changed = log_softmax(_logits(alone, sample), axis=1)
        divergence = float(np.sum(np.exp(own) * (own - changed), axis=1).mean())
        weights = int(np.prod(stored[node.input[1]].dims))
        found.append(QuantizedLayer(node.name, node.op_type, weights, round(divergence, 9)))
        progress.step(f"{node.name}  {divergence:.2e} nats")
    return found


def quantized(
    proto: Any,
    sample: Pixels,
    knobs: Quantize,
    kept: Collection[str] = (),
    seven_bits: bool = True,
) -> bytes:
    """Return the bytes of a float ONNX graph quantized, but for the nodes named in `kept`.

    `sample`, images (N, H, W, 3), gives the ranges of the activations. With `seven_bits` false the
    weights take all 8 bits, and what a processor without VNNI computes is another number.
    """
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    prepared = onnx.ModelProto()
    prepared.CopyFrom(proto)
    prepared.metadata_props.add(key=MARK[0], value=MARK[1])
    quiet = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory(prefix="weighin-quantize") as folder, quiet:
        path = Path(folder) / "model.onnx"
        quantize_static(
            prepared,
            path,
            _Batches(sample),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=seven_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[knobs.calibration],
            nodes_to_exclude=sorted(_with_followers(proto, kept)),
            extra_options={"CalibPercentile": knobs.percentile},
        )
        made = onnx.load_model(path)
    _check_weights(made, LARGEST if seven_bits else 128)
    return _canonical(made, proto)


def _logits(proto: Any, images: Pixels) -> Logits:
    """Return the logits (N, K) of a graph for images (N, H, W, 3)."""
    asked = session(proto)
    parts = [run(asked, feed)[0] for feed in iter(_Batches(images).get_next, None)]
    return np.concatenate(parts)


def _with_followers(proto: Any, kept: Collection[str]) -> set[str]:
    """Return the nodes named, and those without weights that work on their results."""
    found, results = set(kept), set[str]()
    for node in proto.graph.node:
        follows = node.op_type not in WEIGHTED and results.intersection(node.input)
        if node.name in kept or follows:
            found.add(node.name)
            results.update(node.output)
    return found


class _Batches:
    """Calibration images as ONNX Runtime asks for them, in batches of one size."""

    def __init__(self, sample: Pixels) -> None:
        starts = range(0, len(sample), CHUNK)
        self._left: Iterator[Any] = ({"images": normalize(sample[k : k + CHUNK])} for k in starts)

    def get_next(self) -> Any:
        """Return the next feed, None after the last."""
        return next(self._left, None)


def _sample(packed: Path, size: tuple[int, int], params: Params) -> Pixels:
    """Return `quantize.images` training images, drawn by address."""
    train = read_packed(packed, "train", size)
    order = generator(params.seed, "quantize", "sample").permutation(len(train.labels))
    return np.asarray(train.images[np.sort(order[: params.quantize.images])])


def _check_weights(proto: Any, largest: int) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            found = int(np.abs(numpy_helper.to_array(tensor).astype(np.int64)).max(initial=0))
            assert found <= largest, f"{tensor.name} has a weight of {found}, over {largest}"


def _canonical(made: Any, source: Any) -> bytes:
    """Return a graph's bytes with `source`'s metadata, short tensor names and no claims of shapes.

    The quantizer's names are longer than the weights of a small network.
    """
    graph = made.graph
    kept = {value.name for value in [*graph.input, *graph.output]}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if not name or name in kept else names.setdefault(name, f"t{len(names)}")

    for node in graph.node:
        node.doc_string = ""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    del graph.value_info[:], made.metadata_props[:]
    made.metadata_props.extend(source.metadata_props)
    made.producer_name, made.producer_version, made.doc_string = "weighin", "", ""
    onnx.checker.check_model(made, full_check=True)
    data: bytes = made.SerializeToString(deterministic=True)
    return data
