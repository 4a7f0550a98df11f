"""What whole numbers of 8 bits cost and save: `python -m bench.int8 [FOLDER]`.

    int8.f1_lost       macro F1 of the float networks less that of their files in 8 bits, finetuned
                       with the rounding felt where that is better: mean over the kinds of network
    int8.bytes         size of those files over that of the float ones
    int8.memory        peak memory of the activations, likewise
    int8.images        images a second in ONNX Runtime over the float file's, one thread, in turns

The network is results/waste7/network.yaml, trained with the recipe beside it on the photographs of
WEIGHIN_DATA/waste7/train, and finetuned after every step; F1 is of the validation split, which the
choices were made on, and of the public test, which they were not. The median of three seeds, each
with another split and other weights. bench/int8.json gets every point, docs/devices.md shows them.
Name a folder to go on there after an interruption.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from bench.figures import Figures, figure, is_quick, seconds, told, without
from bench.pages import markdown, put
from bench.waste7 import ROOT, WASTE7, packed
from weighin.determinism import pin

if TYPE_CHECKING:
    from weighin.compress.context import CompressionContext
    from weighin.compress.quantize import Quantizer
    from weighin.images import Size
    from weighin.params import Params
    from weighin.training.weights import Trained

COMMAND = "python -m bench.int8"
RECORD, PAGE, POINTS = ROOT / "results/waste7", ROOT / "docs/devices.md", ROOT / "bench/int8.json"
SEEDS = (0, 1, 2)
EPOCHS, QUICK_EPOCHS = (160, 20), (8, 2)  # of training, and after factorizing or pruning
FACTORIZED, PRUNED = {"budget": 0.8}, {"prune_blocks": 2, "prune_channels": 0.25}
KINDS: dict[str, dict[str, float]] = {
    "as trained": {},
    "factorized": FACTORIZED,
    "pruned": {"budget": 1.0, **PRUNED},
    "both": FACTORIZED | PRUNED,
}
FLOAT, PLAIN, TUNED = "float32", "8 bits", "8 bits, finetuned"


@dataclass(frozen=True)
class Point:
    """A file: its network and numbers, its figures as graded, and images a second."""

    seed: int
    kind: str
    numbers: str
    f1: float
    public_f1: float
    macs: int
    parameters: int
    bytes: int
    memory: int
    images: float


def figures(quick: bool = False, folder: Path | None = None) -> Figures:
    """Return this part's figures; quick ones leave the table as it is."""
    from weighin.files import write_json

    if not WASTE7.is_dir():
        return without(WASTE7)
    seeds = SEEDS[:1] if quick else SEEDS
    with tempfile.TemporaryDirectory() as name:
        contexts = [trained((folder or Path(name)) / str(s), params(s, quick)) for s in seeds]
        arms = [(kind, context) for kind in KINDS for context in contexts]
        for make in (float_file, plain_file, tuned_file):
            for kind, context in arms:
                make(kind, context)
        points = [point for kind, context in arms for point in measured(kind, context)]
    if not quick:
        write_json(POINTS, [asdict(point) for point in points])
        put(PAGE, "int8", table(points))
    losses = [mean(a.f1 - b.f1 for a, b in pairs(points, s)) for s in seeds]
    found = {"int8.f1_lost": figure(losses, "F1", "at most 0.01", COMMAND)}
    for what, target in (("bytes", "0.25"), ("memory", "0.25"), ("images", "printed")):
        ratios = [mean(ratio(a, b, what) for a, b in pairs(points, s)) for s in seeds]
        found[f"int8.{what}"] = figure(ratios, "ratio", target, COMMAND)
    return found


def pairs(points: Sequence[Point], seed: int) -> list[tuple[Point, Point]]:
    """Return each kind's float file with the finetuned one of 8 bits."""
    mine = {(point.kind, point.numbers): point for point in points if point.seed == seed}
    return [(mine[kind, FLOAT], mine[kind, TUNED]) for kind in KINDS]


def ratio(whole: Point, small: Point, what: str) -> float:
    """Return a cost of `small` over that of `whole`."""
    return float(getattr(small, what) / getattr(whole, what))


def trained(place: Path, given: "Params") -> "CompressionContext":
    """Return the trained network of a seed in its context."""
    from weighin.compress.context import CompressionContext
    from weighin.network.spec import read_spec
    from weighin.training.train import train_job
    from weighin.training.trainer import Job
    from weighin.training.weights import Trained, read_weights, write_weights

    if not (place / "pack").exists():
        place.mkdir(parents=True, exist_ok=True)
        packed(place, given.prepare, given.seed)
    spec, path = read_spec(RECORD / "network.yaml"), place / "weights.safetensors"
    if not path.exists():
        job = Job(spec, given.recipe, given.train.epochs, place / "pack", (given.seed, "train"))
        write_weights(path, train_job("train", job, "auto", place / "scratch").weights)
    network = Trained(spec, read_weights(path))
    return CompressionContext(place / "pack", network, given.recipe, given, place / "scratch")


def float_file(kind: str, context: "CompressionContext") -> Path:
    """Return the file of a kind of network as it is, made if it is not there."""
    from weighin.compress.context import write_network
    from weighin.compress.finetune import export
    from weighin.files import write_json

    work = context.packed.with_name(kind)
    if not (path := work / "finetune/model.onnx").exists():
        network = compressed(work, replace(context, params=knobs(context.params, kind)))
        write_network(work / "finetune", network)
        write_json(work / "tune/recipe.json", asdict(context.recipe))
        (work / "prepare").symlink_to(context.packed.absolute())
        export(context, network, path)
    return path


def plain_file(kind: str, context: "CompressionContext") -> Path:
    """Return the same in 8 bits."""
    import onnx

    from weighin.files import write_bytes

    source = float_file(kind, context)
    if not (path := context.packed.with_name(kind) / "plain.onnx").exists():
        write_bytes(path, quantizer(context, path).quantized(onnx.load(source)).data)
    return path


def tuned_file(kind: str, context: "CompressionContext") -> Path:
    """Return the same in 8 bits, finetuned if that is better."""
    import onnx

    from weighin.compress.quantize import finetuned
    from weighin.files import write_bytes

    source, work = float_file(kind, context), context.packed.with_name(kind)
    if not (path := work / "tuned.onnx").exists():
        by = quantizer(context, path)
        plain = by.quantized(onnx.load(source))
        best, _ = finetuned(plain, by, work, context.params, work / "scratch")
        write_bytes(path, best.data)
    return path


def quantizer(context: "CompressionContext", path: Path) -> "Quantizer":
    """Return what quantizes a seed's networks; it leaves a file beside `path`."""
    from weighin.compress.quantize import Quantizer

    size, tried = context.trained.spec.input, path.with_suffix(".tried")
    return Quantizer(context.packed, size, context.params, tried)


def measured(kind: str, context: "CompressionContext") -> list[Point]:
    """Return the points of a kind of network."""
    made = {FLOAT: float_file, PLAIN: plain_file, TUNED: tuned_file}
    files = {numbers: make(kind, context) for numbers, make in made.items()}
    speeds = images_a_second(list(files.values()), context.packed)
    return [
        point(context, kind, numbers, path, speed)
        for (numbers, path), speed in zip(files.items(), speeds, strict=True)
    ]


def compressed(work: Path, context: "CompressionContext") -> "Trained":
    """Return the trained network cut and factorized as its parameters say, and finetuned."""
    from weighin.compress.context import read_network
    from weighin.compress.decompose import decompose
    from weighin.compress.finetune import recovered

    if not context.params.decompose.enabled:
        return context.trained
    cut = "cut" if context.params.decompose.prune_blocks else "whole"  # serves both kinds of it
    decompose(replace(context, scratch=context.scratch / cut), work / "decompose")
    network = read_network(work / "decompose")
    context = replace(context, scratch=work / "scratch")
    return recovered(context, network, work / "finetune/history.json")[0]


def point(
    context: "CompressionContext", kind: str, numbers: str, path: Path, speed: float
) -> Point:
    """Return the figures of a file."""
    import numpy as np

    from weighin.data.pack import read_packed
    from weighin.grading.model import open_model
    from weighin.grading.recount import counted, file_cost
    from weighin.grading.runtime import Runner
    from weighin.grading.score import confusion_of_indices

    model = open_model(path)
    runner, held = Runner(model), read_packed(context.packed, "validation", model.size)
    splits = ((np.asarray(held.images), held.labels), public(model.size, model.classes))
    own, other = (
        confusion_of_indices(labels, runner.logits(images).argmax(1), held.classes).f1
        for images, labels in splits
    )
    cost, seed = file_cost(model.graph, counted(model, path), model.bytes), context.params.seed
    print(f"seed {seed}, {kind}, {numbers}: F1 {own:.4f}, {cost.bytes:,} bytes", flush=True)
    counts = (cost.macs, cost.parameters, cost.bytes, cost.memory)
    f1s = (round(own, 6), round(other, 6))
    return Point(seed, kind, numbers, *f1s, *counts, round(speed, 1))


@cache
def public(size: "Size", classes: tuple[str, ...]) -> tuple[Any, Any]:
    """Return the images (N, H, W, 3) of the public test, tall ones turned, and their labels (N)."""
    import numpy as np

    from weighin.images import load
    from weighin.label_csv import read_labels

    files = sorted((WASTE7 / "public").iterdir())
    images = [load(file.read_bytes(), size, True).pixels for file in files]
    truth = read_labels(WASTE7 / "public_truth.csv").by_name()
    return np.stack(images), np.array([classes.index(truth[file.name]) for file in files])


def images_a_second(paths: Sequence[Path], pack: Path) -> list[float]:
    """Return the best of ten runs over the validation images, the files in turns, by CPU time."""
    import numpy as np

    from weighin.data.pack import read_packed
    from weighin.grading.model import open_model
    from weighin.grading.runtime import Runner

    models = [open_model(path) for path in paths]
    images = np.asarray(read_packed(pack, "validation", models[0].size).images)
    runs = [partial(Runner(model).logits, images) for model in models]
    times = [[seconds(run, time.process_time) for run in runs] for _ in range(10)]
    return [len(images) / min(mine) for mine in zip(*times, strict=True)]


def table(points: Sequence[Point]) -> str:
    """Return a Markdown table of every kind and number: means over the seeds, and the change."""
    whole = {(point.seed, point.kind): point for point in points if point.numbers == FLOAT}
    rows = []
    for kind in KINDS:
        for numbers in (FLOAT, PLAIN, TUNED):
            mine = [point for point in points if (point.kind, point.numbers) == (kind, numbers)]
            if mine:
                found = [(whole[point.seed, kind], point) for point in mine]
                rows.append((kind, numbers, str(len(mine)), *cells(found, numbers == FLOAT)))
    head = ("network", "numbers", "seeds", "F1", "public F1", "MACs", "file", "memory", "images/s")
    return markdown(head, rows)


def cells(found: Sequence[tuple[Point, Point]], is_float: bool) -> list[str]:
    """Return a row's cells of some files, each beside the float file of its network."""

    def middle(what: str) -> float:
        return float(mean(getattr(point, what) for _, point in found))

    f1s, costs = [], [f"{middle('macs'):,.0f}"]
    for what in ("f1", "public_f1"):
        change = middle(what) - mean(getattr(point, what) for point, _ in found)
        f1s.append(f"{middle(what):.4f}" + ("" if is_float else f" ({change:+.4f})"))
    for what in ("bytes", "memory"):
        share = mean(ratio(*pair, what) for pair in found)
        costs.append(f"{middle(what):,.0f}" + ("" if is_float else f" ({share:.2f})"))
    speed = mean(ratio(*pair, "images") for pair in found)
    return [*f1s, *costs, f"{speed:.2f}"]


def knobs(given: "Params", kind: str) -> "Params":
    """Return the parameters of a kind."""
    changes: dict[str, Any] = {"enabled": bool(KINDS[kind]), "ranks": "sensitivity", **KINDS[kind]}
    return replace(given, decompose=replace(given.decompose, **changes))


def params(seed: int, quick: bool = False) -> "Params":
    """Return the waste7 parameters with fewer epochs, validation images kept from training."""
    from weighin.params import load

    found = load(RECORD / "params.yaml")
    train, after = QUICK_EPOCHS if quick else EPOCHS
    return replace(
        found,
        seed=seed,
        prepare=replace(found.prepare, group="none"),
        train=replace(found.train, epochs=train, all_data=False),
        finetune=replace(found.finetune, epochs=after),
    )


if __name__ == "__main__":
    pin()
    print(told(figures(is_quick(), Path(sys.argv[1]) if sys.argv[1:] else None)))
