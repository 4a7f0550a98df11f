"""The finetune stage: the factorized network trained on, and the better network exported.

A factorization is a bid: it saves MACs and costs F1, and what finetuning wins back is not known
before. So two networks are measured, the finetuned one and the one that train left, both from
their ONNX files, on the validation split, by the code that grades; the lower score is exported.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from weighin.compress.factorize import rebuilt
from weighin.compress.store import Ranks, Trained, write_network
from weighin.data.pack import Packed, read_packed
from weighin.files import read_json, write_bytes, write_json
from weighin.grading.f1 import agreement
from weighin.grading.model import open_model
from weighin.grading.predict import BATCH, Runner
from weighin.grading.recount import counted
from weighin.grading.score import Metrics, score
from weighin.network.export import export_onnx
from weighin.network.spec import NetworkSpec
from weighin.params import Params, Recipe
from weighin.progress import say
from weighin.training.process_group import is_first
from weighin.training.train import train_job
from weighin.training.trainer import Epoch, Job, Logits
from weighin.training.weights import Weights

FINETUNED, TRAINED = "finetuned", "as trained"


@dataclass(frozen=True)
class Entry:
    """A network as it would be handed in: its file, figures and score; lower is better."""

    network: Trained
    path: Path
    logits: Logits
    metrics: Metrics
    score: float


def finetune(
    packed: Path,
    spec: NetworkSpec,
    ranks: Ranks,
    weights: Weights,
    teacher: Trained,
    recipe: Recipe,
    params: Params,
    out: Path,
    model_path: Path,
    scratch: Path,
) -> None:
    """Train a factorized network on, and export the better of it and `teacher`.

    Into the folder `out` go history.json (of the finetuning), the exported network (network.yaml,
    ranks.yaml, weights.safetensors), its logits on the validation split as ONNX Runtime gives them
    (validation_logits.npy) and choice.json (both networks' figures, and why one was taken);
    `model_path` becomes the ONNX file. `teacher` is the network as it was trained; where `ranks`
    were edited, so that `weights` no longer fit them, it is factorized by them anew.

    Raises:
        NetworkError: rows, ranks and weights do not belong together.
        WorkerError, OutputError: run again, it goes on from the last finished epoch.
    """
    classes = len(read_json(packed / "classes.json"))
    given = rebuilt(Trained(spec, weights, ranks), teacher, classes)
    tuned, history = recovered(packed, given, teacher, recipe, params, out, scratch)
    if not is_first():
        return
    networks = {FINETUNED: tuned, TRAINED: teacher}
    entries = {
        name: enter(network, packed, params, scratch / f"{name}.onnx")
        for name, network in networks.items()
    }
    name = min(entries, key=lambda name: entries[name].score)  # the finetuned one where they tie
    chosen, choice = entries[name], _choice(name, entries)
    write_json(out / "history.json", history)
    write_network(out, chosen.network)
    write_bytes(out / "validation_logits.npy", _npy(chosen.logits))
    write_json(out / "choice.json", choice)
    write_bytes(model_path, chosen.path.read_bytes())
    say(f"finetune  {choice['why']}")


def enter(network: Trained, packed: Path, params: Params, path: Path) -> Entry:
    """Return a network's figures on the validation split, taken from its ONNX file at `path`.

    Raises:
        ModelError, HiddenWorkError: the file could not be graded.
    """
    held = read_packed(packed, "validation", network.spec.input)
    metadata = {
        "classes": json.dumps(held.classes, ensure_ascii=False),
        "fallback": commonest(read_packed(packed, "train", network.spec.input)),
        "turn_tall": json.dumps(params.prepare.turn_tall),
    }
    export_onnx(network.module(len(held.classes)), network.spec.input, path, metadata)
    model = open_model(path)
    logits = _run(Runner(model), held)
    found, count = agreement(held.labels, logits.argmax(1), held.classes), counted(model, path)
    metrics = Metrics(found.f1, found.accuracy, count.macs, count.parameters)
    return Entry(network, path, logits, metrics, score(params.contest, metrics).value)


def commonest(train: Packed) -> str:
    """Return the class with the most images; the first by name where several have."""
    return train.classes[int(np.bincount(train.labels).argmax())]


def recovered(
    packed: Path,
    given: Trained,
    teacher: Trained,
    recipe: Recipe,
    params: Params,
    out: Path,
    scratch: Path,
) -> tuple[Trained, Sequence[Epoch]]:
    """Return a network trained on as `finetune` says, and its history; untouched where it is off.

    Raises:
        WorkerError, OutputError: as `finetune`.
    """
    if not params.finetune.enabled:
        return given, []
    knobs = params.finetune
    loss = replace(recipe.loss, distillation=knobs.distillation)
    job = Job(
        spec=given.spec,
        recipe=replace(recipe, lr=knobs.lr, low_resolution=0.0, loss=loss),
        epochs=knobs.epochs,
        packed=packed,
        address=(params.seed, "finetune"),
        ranks=given.ranks,
        start=given.weights,
        freeze=knobs.freeze,
        teacher=teacher if knobs.distillation else None,
        all_data=params.train.all_data,
    )
    curve = out / "history.json"
    result = train_job("finetune", job, params.train.workers, scratch, curve)
    return replace(given, weights=result.weights), result.history


def _run(runner: Runner, held: Packed) -> Logits:
    starts = range(0, len(held.labels), BATCH)
    return np.concatenate(
        [runner.logits(np.asarray(held.images[at : at + BATCH])) for at in starts]
    )


def _choice(name: str, entries: dict[str, Entry]) -> dict[str, object]:
    figures = {
        key: {**asdict(entry.metrics), "score": entry.score} for key, entry in entries.items()
    }
    one, other = entries[name], next(entries[key] for key in entries if key != name)
    why = (
        f"the network {name} is exported: score {one.score:.4f} on the validation split "
        f"(F1 {one.metrics.f1:.4f}, {one.metrics.macs:,} MACs); the other one's is "
        f"{other.score:.4f} (F1 {other.metrics.f1:.4f}, {other.metrics.macs:,} MACs)"
    )
    return {"exported": name, "candidates": figures, "why": why}


def _npy(logits: Logits) -> bytes:
    data = io.BytesIO()
    np.save(data, logits, allow_pickle=False)
    return data.getvalue()
