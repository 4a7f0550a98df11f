"""The quantize stage: the exported network in whole numbers of 8 bits (network/quantized.py).

What that loses of F1 is won back in this order, until it is at most `quantize.max_loss`: nothing;
quantization-aware finetuning, the float network its teacher; the layers that change the labels most
stay float.
"""

import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from scipy.special import log_softmax

from weighin.data.pack import read_packed
from weighin.determinism import generator
from weighin.errors import ModelError
from weighin.files import write_bytes, write_json, write_npy
from weighin.grading.model import open_model
from weighin.grading.runtime import Logits, Runner, run, session
from weighin.grading.score import confusion_of_indices
from weighin.images import Pixels
from weighin.network.export import onnx_bytes
from weighin.network.quantized import WEIGHTED, Batches, activation_ranges, quantized
from weighin.params import Params, Quantize, load_recipe
from weighin.progress import Progress, say
from weighin.training.device import record_device, require_device

if TYPE_CHECKING:
    from weighin.training.trainer import Epoch

DISTILLATION = 1.0  # weight of the float network's labels in the finetuning


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer with weights, and the divergence (nats) of the labels if it alone is quantized."""

    name: str
    op: str
    weights: int
    divergence: float
    quantized: bool = True


@dataclass(frozen=True)
class Quantized:
    """A quantized file, its float graph, its F1 and its logits on the validation split."""

    source: Any
    data: bytes
    f1: float
    logits: Logits


class Quantizer:
    """Quantizes float graphs with one sample of the training images, and measures the files."""

    def __init__(self, packed: Path, size: tuple[int, int], params: Params, path: Path) -> None:
        self.knobs, self.path = params.quantize, path
        self.held = read_packed(packed, "validation", size)
        train = read_packed(packed, "train", size)
        order = generator(params.seed, "quantize", "sample").permutation(len(train.labels))
        self.sample = np.asarray(train.images[np.sort(order[: self.knobs.images])])

    def f1(self, logits: Logits) -> float:
        """Return the macro F1 of logits (N, K) on the validation split."""
        return confusion_of_indices(self.held.labels, logits.argmax(1), self.held.classes).f1

    def logits(self, data: bytes) -> Logits:
        """Return the logits (N, K) of a file on the validation split, as the grader computes them.

        Raises:
            ModelError: it cannot be graded.
        """
        write_bytes(self.path, data)
        return Runner(open_model(self.path)).logits(np.asarray(self.held.images))

    def quantized(self, proto: Any, kept: Collection[str] = ()) -> Quantized:
        """Return a float graph quantized, but for the nodes named in `kept`, and measured."""
        data = quantized(proto, self.sample, self.knobs, kept)
        logits = self.logits(data)
        return Quantized(proto, data, self.f1(logits), logits)


def _pass_on(data: bytes, out: Path, model_path: Path) -> None:
    for name in ("history.json", "validation_logits.npy"):  # of a run by hand before
        (out / name).unlink(missing_ok=True)
    record_device(out, None)
    write_bytes(model_path, data)
    write_json(out / "quantization.json", {"enabled": False})


def quantize(work: Path, params: Params, scratch: Path, out: Path, model_path: Path) -> None:
    """Write the exported network in 8 bits to `model_path`; as it is where that is switched off.

    `work` holds the folders of the stages before. Into the folder `out` go quantization.json (the
    layers and both networks' F1), history.json of a finetuning, and the exported file's logits on
    the validation split (validation_logits.npy).

    Raises:
        ModelError: the network cannot be graded, or nothing of it can be quantized.
        NetworkError, ParamsError: a stage's files do not belong together; the finetuning diverged.
        WorkerError, OutputError: run again, it goes on from the last finished epoch.
    """
    source = work / "finetune/model.onnx"
    if not source.is_file():
        raise ModelError(f"{source} does not exist", "run `dvc repro finetune`")
    data, knobs = source.read_bytes(), params.quantize
    if not knobs.enabled:
        _pass_on(data, out, model_path)
        return
    proto = onnx.load_model_from_string(data)
    quantizer = Quantizer(work / "prepare", open_model(source).size, params, scratch / "tried.onnx")
    before, found = quantizer.f1(quantizer.logits(data)), quantizer.quantized(proto)
    enough, after, history = before - knobs.max_loss, found.f1, list["Epoch"]()
    if found.f1 < enough and knobs.epochs:
        from weighin.training import process_group

        found, history = finetuned(found, quantizer, work, params, scratch)
        if not process_group.is_first():
            return
    layers = sensitivity(found.source, quantizer.sample, knobs)
    ranked, kept = sorted(layers, key=lambda layer: -layer.divergence), list[str]()
    while found.f1 < enough and len(kept) < len(ranked):
        kept.append(ranked[len(kept)].name)
        found = quantizer.quantized(found.source, kept)
    say(
        f"quantize  F1 {before:.4f} -> {found.f1:.4f}, {len(data):,} -> {len(found.data):,} bytes; "
        f"{len(kept)} of {len(layers)} layers stay float"
    )
    rows = [asdict(replace(layer, quantized=layer.name not in kept)) for layer in layers]
    f1s = {"f1_before": before, "f1_untrained": after, "f1_after": found.f1}
    sizes = {"bytes_before": len(data), "bytes_after": len(found.data)}
    facts = {"enabled": True, **{name: round(f1, 6) for name, f1 in f1s.items()}, **sizes}
    write_bytes(model_path, found.data)
    write_json(out / "history.json", history)
    record_device(out, load_recipe(work / "tune/recipe.json") if history else None)
    write_npy(out / "validation_logits.npy", found.logits)
    write_json(out / "quantization.json", {**facts, "layers": rows})


def finetuned(
    found: Quantized, quantizer: Quantizer, work: Path, params: Params, scratch: Path
) -> tuple[Quantized, "list[Epoch]"]:
    """Return the network finetuned with the ranges of `found` and quantized; the better of both."""
    from weighin.compress.context import CompressionContext, read_network

    network, recipe = read_network(work / "finetune"), load_recipe(work / "tune/recipe.json")
    require_device(recipe)
    result = CompressionContext(work / "prepare", network, recipe, params, scratch).train_on(
        network,
        "quantize",
        params.quantize.lr,
        DISTILLATION,
        epochs=params.quantize.epochs,
        all_data=params.train.all_data,
        workers=params.train.workers,
        ranges=activation_ranges(onnx.load_model_from_string(found.data)),
    )
    metadata = {entry.key: entry.value for entry in found.source.metadata_props}
    module = replace(network, weights=result.weights).module(len(quantizer.held.classes))
    proto = onnx.load_model_from_string(onnx_bytes(module, network.spec.input, metadata))
    tuned = quantizer.quantized(proto)
    return (tuned if tuned.f1 > found.f1 else found), result.history


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
    with tempfile.TemporaryDirectory(prefix="weighin-quantize") as folder:
        for node in nodes:
            others = {other.name for other in proto.graph.node} - {node.name}
            data = quantized(proto, sample, knobs, others, ranges=Path(folder) / "ranges.json")
            changed = log_softmax(_logits(onnx.load_model_from_string(data), sample), axis=1)
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
