"""How small a trained network gets before it is worse: `python -m bench.compress`.

    compress.macs_at_1pt     share of the trained network's MACs that is left, at the smallest of
                             BUDGETS where macro F1 after finetuning is at most 0.01 lower
    compress.latency_at_1pt  time of one image in ONNX Runtime, that network over the trained one,
                             one thread: fewer MACs are not always faster

The network is rows/small.yaml on the photographs of WEIGHIN_DATA/waste7/train, with the recipe of
params.yaml; F1 is of its validation split, median of three seeds. bench/compress_curves.json gets
every point of seed 1: F1 and MACs by factorising alone, by cutting alone, and by both.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figures, told, without
from bench.waste7 import ROOT, TRAIN, packed
from weighin.determinism import pin

if TYPE_CHECKING:
    from weighin.compress.store import Trained
    from weighin.params import Params

COMMAND = "python -m bench.compress"
CURVES = Path("bench/compress_curves.json")
BUDGETS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
CUTS = (2, 4)  # blocks
ALLOWED = 0.01  # of F1
IMAGES = 500  # of a latency


@dataclass(frozen=True)
class Point:
    """A compressed network: how, its figures as graded, and milliseconds an image."""

    how: str
    f1: float
    macs: int
    latency: float


def figures(quick: bool = False) -> Figures:
    """Return this room's figures."""
    if not TRAIN.is_dir():
        return without(TRAIN)
    seeds = (1,) if quick else (1, 2, 3)
    shares, times = [], []
    with tempfile.TemporaryDirectory() as name:
        pack = _packed(Path(name))
        for seed in seeds:
            whole, best = _smallest(pack, Path(name) / str(seed), _params(seed, quick), seed == 1)
            shares.append(best.macs / whole.macs)
            times.append(best.latency / whole.latency)
    macs, latency = (round(statistics.median(runs), 3) for runs in (shares, times))
    shared = {"unit": "ratio", "runs": len(seeds), "command": COMMAND}
    return {
        "compress.macs_at_1pt": {"value": macs, "target": "at most 0.6", **shared},
        "compress.latency_at_1pt": {"value": latency, "target": "reported", **shared},
    }


def _smallest(pack: Path, folder: Path, params: "Params", curves: bool) -> tuple[Point, Point]:
    """Return the trained network's point and the smallest one that is hardly worse."""
    from weighin.files import write_json

    trained = _trained(pack, folder, params)
    whole = _point("as trained", trained, pack, params, folder)
    points = [_compressed(pack, folder, trained, params, budget) for budget in BUDGETS]
    if curves:
        cuts = [_compressed(pack, folder, trained, params, 1.0, count) for count in CUTS]
        both = [_compressed(pack, folder, trained, params, 0.7, count) for count in CUTS]
        write_json(CURVES, [asdict(point) for point in (whole, *points, *cuts, *both)])
    near = [point for point in (whole, *points) if point.f1 >= whole.f1 - ALLOWED]
    return whole, min(near, key=lambda point: point.macs)


def _compressed(
    pack: Path, folder: Path, trained: "Trained", params: "Params", budget: float, cuts: int = 0
) -> Point:
    """Return a network that was cut, factorised down to a budget and finetuned."""
    from weighin.compress.decompose import decompose
    from weighin.compress.finetune import recovered
    from weighin.compress.store import read_network

    name = f"budget {budget:g}, {cuts} blocks"
    knobs = replace(params.decompose, ranks="sensitivity", budget=budget, cut_blocks=cuts)
    chosen = replace(params, decompose=knobs)
    scratch = folder / f"scratch-{cuts}"  # sensitivities serve every budget
    out = folder / name
    decompose(pack, trained.spec, trained.weights, params.recipe, chosen, out, scratch)
    small = read_network(out)
    tuned, _ = recovered(pack, small, trained, params.recipe, chosen, out, out / "scratch")
    return _point(name, tuned, pack, chosen, out)


def _point(how: str, network: "Trained", pack: Path, params: "Params", folder: Path) -> Point:
    from weighin.compress.finetune import enter

    path = folder / "model.onnx"
    entry = enter(network, pack, params, path)
    point = Point(how, entry.metrics.f1, entry.metrics.macs, _latency(path))
    print(f"seed {params.seed}, {how}: F1 {point.f1:.4f}, {point.macs:,} MACs", flush=True)
    return point


def _latency(path: Path) -> float:
    """Return milliseconds an image: the best of five runs of some images, one at a time."""
    import numpy as np

    from weighin.grading.model import open_model
    from weighin.grading.predict import Runner

    model = open_model(path)
    runner, image = Runner(model), np.zeros((1, *model.size, 3), np.uint8)
    runs = [_seconds(lambda: [runner.logits(image) for _ in range(IMAGES)]) for _ in range(5)]
    return 1000 * min(runs) / IMAGES


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _trained(pack: Path, folder: Path, params: "Params") -> "Trained":
    from weighin.compress.store import Trained
    from weighin.network.spec import read_spec, shipped
    from weighin.training.complete import complete
    from weighin.training.job import Job

    spec = read_spec(shipped("small"))
    job = Job(spec, params.recipe, params.train.epochs, pack, (params.seed, "train"))
    return Trained(spec, complete("train", job, "auto", folder / "scratch").weights)


def _params(seed: int, quick: bool) -> "Params":
    from weighin.params import load

    params = load(ROOT / "params.yaml")
    train = replace(params.train, epochs=10 if quick else 60)
    finetune = replace(params.finetune, epochs=4 if quick else 20)
    return replace(params, seed=seed, train=train, finetune=finetune)


def _packed(folder: Path) -> Path:
    from weighin.params import load

    params = load(ROOT / "params.yaml").prepare
    return packed(folder, replace(params, sizes=((64, 64),), turn_tall=True, group="none"))


if __name__ == "__main__":
    pin()
    print(told(figures(os.environ.get("QUICK") == "1")))
