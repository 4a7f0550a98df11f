"""The quantize stage: the exported network in whole numbers of 8 bits (network/quantized.py)."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from scipy.special import log_softmax

from weighin.data.pack import read_packed
from weighin.determinism import generator
from weighin.errors import ModelError
from weighin.files import write_bytes, write_json, write_npy
from weighin.grading.f1 import confusion_of_indices
from weighin.grading.model import open_model
from weighin.grading.runtime import Logits, Runner, run, session
from weighin.images import Pixels
from weighin.network.quantized import WEIGHTED, Batches, quantized
from weighin.params import Params, Quantize
from weighin.progress import Progress, say


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


def _logits(proto: Any, images: Pixels) -> Logits:
    """Return the logits (N, K) of a graph for images (N, H, W, 3)."""
    asked = session(proto)
    parts = [run(asked, feed)[0] for feed in iter(Batches(images).get_next, None)]
    return np.concatenate(parts)


def _sample(packed: Path, size: tuple[int, int], params: Params) -> Pixels:
    """Return `quantize.images` training images, drawn by address."""
    train = read_packed(packed, "train", size)
    order = generator(params.seed, "quantize", "sample").permutation(len(train.labels))
    return np.asarray(train.images[np.sort(order[: params.quantize.images])])
