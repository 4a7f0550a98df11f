"""The finetune stage: the factorized network trained on, and the better network exported.

A factorization saves MACs and costs F1, and what finetuning wins back is not known before. So two
networks are measured, the finetuned one and the one that train left, both from their ONNX files, on
the validation split, by the code that grades; the lower expected score is exported (grading/risk).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from weighin.compress.context import CompressionContext, check_finite, write_network
from weighin.compress.factorize import follow_ranks
from weighin.data.pack import Packed, read_packed
from weighin.files import write_bytes, write_json, write_npy
from weighin.grading.model import open_model
from weighin.grading.recount import counted, file_cost
from weighin.grading.risk import expected_score
from weighin.grading.runtime import Runner
from weighin.grading.score import Metrics, confusion_of_indices, needs_file, score
from weighin.network.export import export_onnx, exported_cost, file_metadata
from weighin.progress import say
from weighin.training.device import record_device
from weighin.training.process_group import is_first
from weighin.training.trainer import Epoch, Logits
from weighin.training.weights import Trained

FINETUNED, TRAINED = "finetuned", "as trained"


@dataclass(frozen=True)
class Exported:
    """A network as it would be submitted: its file, figures and scores; lower is better."""

    network: Trained
    path: Path
    logits: Logits
    metrics: Metrics
    score: float
    expected: float  # the score's mean over resamples of the validation images


def finetune(context: CompressionContext, given: Trained, out: Path) -> None:
    """Train the factorized network `given` on, and export the better of it and the trained one.

    Into the folder `out` go history.json (of the finetuning), the exported network (network.yaml,
    ranks.yaml, weights.safetensors, model.onnx), its logits on the validation split as ONNX Runtime
    gives them (validation_logits.npy) and choice.json (both networks' figures, and why one was
    taken). Where the ranks of `given` were edited, so that its weights no longer fit them, the
    trained network is factorized by them anew.

    Raises:
        NetworkError: rows, ranks and weights do not belong together.
        WorkerError, OutputError: run again, it goes on from the last finished epoch.
    """
    check_finite(given)
    given = follow_ranks(given, context.trained, context.classes)
    tuned, history = recovered(context, given, out / "history.json")
    if not is_first():
        return
    networks = {FINETUNED: tuned, TRAINED: context.trained}
    exports = {
        name: export(context, network, context.scratch / f"{name}.onnx")
        for name, network in networks.items()
    }
    name = min(exports, key=lambda name: exports[name].expected)  # the finetuned one where they tie
    chosen, choice = exports[name], _choice(name, exports)
    write_json(out / "history.json", history)
    write_network(out, chosen.network)
    record_device(out, context.recipe if context.params.finetune.enabled else None)
    write_npy(out / "validation_logits.npy", chosen.logits)
    write_json(out / "choice.json", choice)
    write_bytes(out / "model.onnx", chosen.path.read_bytes())
    say(f"finetune  {choice['why']}")


def recovered(
    context: CompressionContext, given: Trained, curve: Path
) -> tuple[Trained, Sequence[Epoch]]:
    """Return a network trained on as `finetune` says, and its history; untouched where it is off.

    Raises:
        WorkerError, OutputError: as `finetune`.
    """
    knobs, train = context.params.finetune, context.params.train
    if not knobs.enabled:
        return given, []
    result = context.train_on(
        given,
        "finetune",
        knobs.lr,
        knobs.distillation,
        epochs=knobs.epochs,
        freeze=knobs.freeze,
        augment=knobs.augment,
        all_data=train.all_data,
        workers=train.workers,
        curve=curve,
    )
    return replace(given, weights=result.weights), result.history


def export(context: CompressionContext, network: Trained, path: Path) -> Exported:
    """Return a network's figures on the validation split, taken from its ONNX file at `path`.

    Raises:
        ModelError, HiddenWorkError: the file could not be graded.
    """
    held = read_packed(context.packed, "validation", network.spec.input)
    fallback = commonest(read_packed(context.packed, "train", network.spec.input))
    metadata = file_metadata(held.classes, fallback, context.params.prepare.turn_tall)
    export_onnx(network.module(len(held.classes)), network.spec.input, path, metadata)
    model = open_model(path)
    logits = Runner(model).logits(np.asarray(held.images))
    found = confusion_of_indices(held.labels, logits.argmax(1), held.classes)
    contest = context.params.contest
    needs = file_cost(model.graph, counted(model, path), model.bytes)
    if context.params.quantize.enabled and needs_file(contest, quantized=True):
        needs = exported_cost(network.spec, held.classes, context.params.quantize, network.ranks)
    metrics = Metrics.of(found.f1, found.accuracy, needs)
    expected = expected_score(contest, found, needs, context.params.seed).expected
    return Exported(network, path, logits, metrics, score(contest, metrics).value, expected)


def commonest(train: Packed) -> str:
    """Return the class with the most images; the first by name where several have."""
    return train.classes[int(np.bincount(train.labels).argmax())]


def _choice(name: str, exports: dict[str, Exported]) -> dict[str, object]:
    figures = {
        key: {**asdict(one.metrics), "score": one.score, "expected": one.expected}
        for key, one in exports.items()
    }
    one, other = exports[name], next(exports[key] for key in exports if key != name)
    why = (
        f"the network {name} is exported: expected score {one.expected:.4f}, {one.score:.4f} on "
        f"the validation split (F1 {one.metrics.f1:.4f}, {one.metrics.macs:,} MACs); the other "
        f"one's are {other.expected:.4f} and {other.score:.4f} "
        f"(F1 {other.metrics.f1:.4f}, {other.metrics.macs:,} MACs)"
    )
    return {"exported": name, "candidates": figures, "why": why}
