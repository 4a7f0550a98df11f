"""What more MACs are worth: `python -m bench.front` (two CPU hours).

The network of results/waste7 at several widths and input sizes, by its recipe but 360 epochs, with
the validation split kept apart and nothing factorized; each seed has another split and other
weights. No figure of `bench/results.json`: bench/front.json has every network, docs/waste7.md a
table and a picture of them. Name a folder to go on there after an interruption.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean

from bench.pages import markdown, put, spread
from bench.results import RECORD, build, cloned
from bench.waste7 import ROOT
from weighin.determinism import pin
from weighin.files import read_json, read_yaml, write_json, write_text

POINTS, PAGE, PICTURE = ROOT / "bench/front.json", ROOT / "docs/waste7.md", ROOT / "docs/front.svg"
SEEDS = (0, 1, 2)
Form = tuple[tuple[int, int], float]  # input size, width
FORMS: tuple[Form, ...] = (((38, 52), 0.3), ((38, 52), 0.6), ((46, 64), 1.1), ((46, 64), 1.6))
FIGURES = {"f1": "F1", "background": "F1 on blots of color", "score": "score"}
CHANGES = {
    "contest.max_macs": 20_000_000,
    "prepare.sizes": tuple(dict.fromkeys(size for size, _ in FORMS)),
    "search.network": "form.yaml",
    "train.epochs": 360,
    "train.all_data": False,
    "decompose.enabled": False,
    "finetune.enabled": False,
}


@dataclass(frozen=True)
class Point:
    """A network, with its figures on the validation split; `background` is F1 on another one."""

    seed: int
    macs: int
    f1: float
    background: float
    score: float


def measured(clone: Path, form: Form, seed: int) -> Point:
    """Build a network in a clone and return its figures."""
    network = read_yaml(RECORD / "network.yaml")
    size, width = form
    write_json(clone / "form.yaml", {**network, "input": list(size), "width": width})
    build(clone, seed, CHANGES)
    found = read_json(clone / "submission/metrics.json")
    background = found["robustness"]["background"]
    return Point(seed, found["macs"], found["f1"], background, found["score"])


def show(points: Sequence[Point]) -> None:
    """Write the points, their table and their picture."""
    write_json(POINTS, [asdict(point) for point in points])
    put(PAGE, "front", table(points))
    write_text(PICTURE, drawn(points))


def by_macs(points: Sequence[Point]) -> list[list[Point]]:
    """Return the points of each network."""
    ordered = sorted(points, key=lambda point: (point.macs, point.seed))
    return [list(same) for _, same in groupby(ordered, lambda point: point.macs)]


def table(points: Sequence[Point]) -> str:
    """Return a Markdown table: means over the seeds, with the lowest and highest."""
    rows = [
        (f"{same[0].macs:,}", *(spread([getattr(p, name) for p in same]) for name in FIGURES))
        for same in by_macs(points)
    ]
    return markdown(("MACs", *FIGURES.values()), rows)


def drawn(points: Sequence[Point]) -> str:
    """Return an SVG of F1 against MACs: each network, and the means over the seeds."""
    from weighin.report.formatting import BLUE, ORANGE, canvas, saved, style

    networks = by_macs(points)
    kinds = {"f1": ("as they are", BLUE), "background": ("on blots of color", ORANGE)}
    with style("front"):
        picture, axes = canvas(7.2, 4.0, left=0.6, bottom=0.9, right=0.1, top=0.1)
        for name, (label, color) in kinds.items():
            macs = [point.macs / 1e6 for point in points]
            values = [getattr(point, name) for point in points]
            axes.plot(macs, values, "o", color=color, alpha=0.35, markersize=4)
            means = [mean(getattr(point, name) for point in same) for same in networks]
            places = [same[0].macs / 1e6 for same in networks]
            axes.plot(places, means, "o-", color=color, label=label)
        axes.set(xlabel="million MACs", ylabel="validation F1")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
        return saved(picture)


if __name__ == "__main__":
    pin()
    with tempfile.TemporaryDirectory() as name:
        folder = cloned(Path(sys.argv[1] if sys.argv[1:] else name) / "clone")
        show([measured(folder, form, seed) for form in FORMS for seed in SEEDS])
