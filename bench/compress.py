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

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figures, figure, told, without
from bench.waste7 import ROOT, TRAIN, packed
from weighin.determinism import pin

if TYPE_CHECKING:
    from weighin.compress.store import Trained
    from weighin.params import Params

COMMAND = "python -m bench.compress"
CURVES, PICTURE = ROOT / "bench/compress_curves.json", ROOT / "docs/compress.svg"
PAGE, TABLE = ROOT / "docs/waste7.md", re.compile(r"(?<=<!-- ways -->\n).*?(?=<!-- end -->)", re.S)
ALLOWED = 0.01  # of F1
IMAGES = 500  # of a latency
EPOCHS, QUICK_EPOCHS = (120, 30), (10, 4)  # of training and of finetuning


@dataclass(frozen=True)
class Way:
    """What is cut at most, and the share of the MACs that factorising then leaves."""

    blocks: int
    channels: float
    budget: float

    def __str__(self) -> str:
        parts = [f"{self.blocks} blocks"] if self.blocks else []
        parts += [f"{self.channels:g} of the channels"] if self.channels else []
        parts += [f"to {self.budget:g}"] if self.budget < 1 else []
        return ", ".join(parts)


WHOLE = "as trained"
WAYS = {
    "factorising": (Way(0, 0, 0.85), Way(0, 0, 0.7), Way(0, 0, 0.55)),
    "cutting": (Way(2, 0, 1), Way(4, 0, 1), Way(4, 0.25, 1)),
    "both": (Way(2, 0, 0.75), Way(4, 0, 0.75), Way(4, 0, 0.6)),
}


@dataclass(frozen=True)
class Point:
    """A network: how it became so small, its figures as graded, and milliseconds an image."""

    seed: int
    how: str
    f1: float
    macs: int
    latency: float


def figures(quick: bool = False) -> Figures:
    """Return this room's figures; quick ones are of one seed and few epochs, and are not kept."""
    from weighin.files import write_json, write_text

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
        write_text(PICTURE, drawn(curves))
        page = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, TABLE.sub(lambda _: table(curves), page))
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


def table(curves: Sequence[Sequence[Point]]) -> str:
    """Return a Markdown table of the ways: the middle of the seeds, against the whole network."""
    lines = ["| at most | MACs left | F1 | latency |", "|---|---|---|---|"]
    ways = [f"{how}: {way}" for how, ways in WAYS.items() for way in ways]
    for place, name in enumerate(ways, 1):
        pairs = [(points[0], points[place]) for points in curves]
        macs, f1, latency = (
            statistics.median(values)
            for values in zip(
                *((b.macs / a.macs, b.f1 - a.f1, b.latency / a.latency) for a, b in pairs),
                strict=True,
            )
        )
        lines.append(f"| {name} | {macs:.2f} | {f1:+.3f} | {latency:.2f} |")
    return "\n".join([*lines, ""])


def drawn(curves: Sequence[Sequence[Point]]) -> str:
    """Return an SVG of F1 against MACs: each way's points, and the median over the seeds."""
    from weighin.report.svg import BLUE, GREEN, INK, MUTED, ORANGE, canvas, saved, style

    colours = {WHOLE: INK, **dict(zip(WAYS, (BLUE, ORANGE, GREEN), strict=True))}
    with style("compress"):
        picture, axes = canvas(7.2, 4.2, left=0.6, bottom=1.0, right=0.1, top=0.1)
        for how, colour in colours.items():
            mine = [[point for point in points if point.how == how] for points in curves]
            for points in mine:
                axes.plot(*_axes(points), "o", color=colour, alpha=0.35, markersize=4)
            middle = [statistics.median(column) for column in zip(*map(_f1, mine), strict=True)]
            macs = [statistics.median(column) for column in zip(*map(_macs, mine), strict=True)]
            axes.plot(macs, middle, "o-", color=colour, label=how)
        level = statistics.median(points[0].f1 for points in curves) - ALLOWED
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="0.01 less")
        axes.set(xlabel="million MACs", ylabel="validation F1")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=5, handletextpad=0.4)
        return saved(picture)


def _axes(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return _macs(points), _f1(points)


def _macs(points: Sequence[Point]) -> list[float]:
    return [point.macs / 1e6 for point in points]


def _f1(points: Sequence[Point]) -> list[float]:
    return [point.f1 for point in points]


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
        cut_blocks=way.blocks,
        cut_channels=way.channels,
    )
    return replace(params, decompose=knobs)


def _compressed(pack: Path, trained: "Trained", params: "Params", out: Path) -> "Trained":
    """Return the network cut, factorised down to a budget and finetuned."""
    from weighin.compress.decompose import decompose
    from weighin.compress.finetune import recovered
    from weighin.compress.store import read_network

    knobs = params.decompose
    # what was cut and measured serves every budget
    scratch = out.with_name(f"cut-{knobs.cut_blocks}-{knobs.cut_channels}")
    decompose(pack, trained.spec, trained.weights, params.recipe, params, out, scratch)
    small = read_network(out)
    return recovered(pack, small, trained, params.recipe, params, out, out / "scratch")[0]


def _point(how: str, network: "Trained", pack: Path, params: "Params", folder: Path) -> Point:
    from weighin.compress.finetune import enter

    path = folder / "model.onnx"
    metrics = enter(network, pack, params, path).metrics
    point = Point(params.seed, how, round(metrics.f1, 6), metrics.macs, _latency(path))
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
    return round(1000 * min(runs) / IMAGES, 4)


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
    print(told(figures(os.environ.get("QUICK") == "1")))
