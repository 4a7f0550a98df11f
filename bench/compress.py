"""How small a trained network gets before it is worse: `python -m bench.compress`.

    compress.macs_at_1pt     share of the trained network's MACs that is left, at the smallest of
                             the points of WAYS where macro F1 after finetuning is at most 0.01
                             lower
    compress.latency_at_1pt  time of one image in ONNX Runtime, that network over the trained one,
                             one thread: fewer MACs are not always faster

The network is rows/small.yaml on the photographs of WEIGHIN_DATA/waste7/train, with the recipe of
results/waste7/params.yaml; F1 is of its validation split, median of three seeds.
bench/compress_curves.json gets every point, docs/waste7.md shows them.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.curves import ALLOWED, WAYS, WHOLE, Point, Way, show
from bench.figures import Figures, figure, is_quick, seconds, told, without
from bench.waste7 import ROOT, TRAIN, packed
from weighin.determinism import pin

if TYPE_CHECKING:
    from weighin.params import Params
    from weighin.training.weights import Trained

COMMAND = "python -m bench.compress"
CURVES = ROOT / "bench/compress_curves.json"
IMAGES = 500  # of a latency
EPOCHS, QUICK_EPOCHS = (120, 30), (10, 4)  # of training and of finetuning


def figures(quick: bool = False) -> Figures:
    """Return this part's figures; quick ones leave the curves as they are."""
    from weighin.files import write_json

    if not TRAIN.is_dir():
        return without(TRAIN)
    with tempfile.TemporaryDirectory() as name:
        pack = _packed(Path(name))
        curves = [
            _curves(pack, Path(name) / str(seed), _params(seed, quick))
            for seed in ((1,) if quick else (1, 2, 3))
        ]
    if not quick:
        write_json(CURVES, [asdict(point) for points in curves for point in points])
        show(curves)
    pairs = [(points[0], smallest(points)) for points in curves]
    macs = [best.macs / whole.macs for whole, best in pairs]
    latency = [best.latency / whole.latency for whole, best in pairs]
    return {
        "compress.macs_at_1pt": figure(macs, "ratio", "at most 0.6", COMMAND),
        "compress.latency_at_1pt": figure(latency, "ratio", "reported", COMMAND),
    }


def smallest(points: Sequence[Point]) -> Point:
    """Return the smallest network that is hardly worse than the first, the one as trained."""
    near = [point for point in points if point.f1 >= points[0].f1 - ALLOWED]
    return min(near, key=lambda point: point.macs)


def _curves(pack: Path, folder: Path, params: "Params") -> list[Point]:
    """Return the trained network's point, and those of every way to make it smaller."""
    trained = _trained(pack, folder, params)
    points = [_point(WHOLE, trained, pack, params, folder)]
    for how, ways in WAYS.items():
        for number, way in enumerate(ways):
            out = folder / f"{how}-{number}"
            knobs = _knobs(params, way)
            points.append(_point(how, _compressed(pack, trained, knobs, out), pack, knobs, out))
    return points


def _knobs(params: "Params", way: Way) -> "Params":
    knobs = replace(
        params.decompose,
        enabled=True,
        ranks="sensitivity",
        budget=way.budget,
        prune_blocks=way.blocks,
        prune_channels=way.channels,
    )
    return replace(params, decompose=knobs)


def _compressed(pack: Path, trained: "Trained", params: "Params", out: Path) -> "Trained":
    """Return the network cut, factorized down to a budget and finetuned."""
    from weighin.compress.context import CompressionContext, read_network
    from weighin.compress.decompose import decompose
    from weighin.compress.finetune import recovered

    knobs = params.decompose
    # what was cut and measured serves every budget
    scratch = out.with_name(f"cut-{knobs.prune_blocks}-{knobs.prune_channels}")
    context = CompressionContext(pack, trained, params.recipe, params, scratch)
    decompose(context, out)
    context = replace(context, scratch=out / "scratch")
    return recovered(context, read_network(out), out / "history.json")[0]


def _point(how: str, network: "Trained", pack: Path, params: "Params", folder: Path) -> Point:
    from weighin.compress.context import CompressionContext
    from weighin.compress.finetune import export

    path = folder / "model.onnx"
    context = CompressionContext(pack, network, params.recipe, params, folder)
    metrics = export(context, network, path).metrics
    point = Point(params.seed, how, round(metrics.f1, 6), metrics.macs, _latency(path))
    print(f"seed {params.seed}, {how}: F1 {point.f1:.4f}, {point.macs:,} MACs", flush=True)
    return point


def _latency(path: Path) -> float:
    """Return milliseconds an image: the best of five runs of some images, one at a time."""
    import numpy as np

    from weighin.grading.model import open_model
    from weighin.grading.runtime import Runner

    model = open_model(path)
    runner, image = Runner(model), np.zeros((1, *model.size, 3), np.uint8)
    runs = [seconds(lambda: [runner.logits(image) for _ in range(IMAGES)]) for _ in range(5)]
    return round(1000 * min(runs) / IMAGES, 4)


def _trained(pack: Path, folder: Path, params: "Params") -> "Trained":
    from weighin.network.spec import read_spec, shipped
    from weighin.training.train import train_job
    from weighin.training.trainer import Job
    from weighin.training.weights import Trained

    spec = read_spec(shipped("small"))
    job = Job(spec, params.recipe, params.train.epochs, pack, (params.seed, "train"))
    return Trained(spec, train_job("train", job, "auto", folder / "scratch").weights)


def _params(seed: int, quick: bool) -> "Params":
    from weighin.params import load

    params = load(ROOT / "results/waste7/params.yaml")
    train, tuned = QUICK_EPOCHS if quick else EPOCHS
    return replace(
        params,
        seed=seed,
        train=replace(params.train, epochs=train),
        finetune=replace(params.finetune, epochs=tuned),
    )


def _packed(folder: Path) -> Path:
    params = _params(1, quick=True).prepare
    return packed(folder, replace(params, sizes=((64, 64),), group="none"))


if __name__ == "__main__":
    pin()
    print(told(figures(is_quick())))
