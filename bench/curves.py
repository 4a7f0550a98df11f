"""F1 against MACs of a network made smaller: the ways, their points, a table and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.pages import markdown, put
from bench.waste7 import ROOT

PAGE = ROOT / "docs/waste7.md"
PICTURE = ROOT / "docs/compress.svg"
ALLOWED = 0.01  # of F1


@dataclass(frozen=True)
class Way:
    """What is cut at most, and the share of the MACs that factorizing then leaves."""

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
    "factorizing": (Way(0, 0, 0.85), Way(0, 0, 0.7), Way(0, 0, 0.55)),
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


def show(curves: Sequence[Sequence[Point]]) -> None:
    """Write the table and the picture of some seeds' points, the whole network's first."""
    from weighin.files import write_text

    write_text(PICTURE, drawn(curves))
    put(PAGE, "ways", table(curves))


def table(curves: Sequence[Sequence[Point]]) -> str:
    """Return a Markdown table of the ways: the middle of the seeds, against the whole network."""
    names = [f"{how}: {way}" for how, ways in WAYS.items() for way in ways]
    rows = []
    for place, name in enumerate(names, 1):
        pairs = [(points[0], points[place]) for points in curves]
        macs = median(small.macs / whole.macs for whole, small in pairs)
        f1 = median(small.f1 - whole.f1 for whole, small in pairs)
        latency = median(small.latency / whole.latency for whole, small in pairs)
        rows.append((name, f"{macs:.2f}", f"{f1:+.3f}", f"{latency:.2f}"))
    return markdown(("at most", "MACs left", "F1", "latency"), rows)


def drawn(curves: Sequence[Sequence[Point]]) -> str:
    """Return an SVG of F1 against MACs: each way's points, and the median over the seeds."""
    from weighin.report.formatting import BLUE, GREEN, INK, MUTED, ORANGE, canvas, saved, style

    colours = {WHOLE: INK, **dict(zip(WAYS, (BLUE, ORANGE, GREEN), strict=True))}
    with style("compress"):
        picture, axes = canvas(7.2, 4.2, left=0.6, bottom=1.0, right=0.1, top=0.1)
        for how, colour in colours.items():
            mine = [[point for point in points if point.how == how] for points in curves]
            macs = [[point.macs / 1e6 for point in points] for points in mine]
            f1s = [[point.f1 for point in points] for points in mine]
            for x, y in zip(macs, f1s, strict=True):
                axes.plot(x, y, "o", color=colour, alpha=0.35, markersize=4)
            middle = [list(map(median, zip(*of, strict=True))) for of in (macs, f1s)]
            axes.plot(*middle, "o-", color=colour, label=how)
        level = median(points[0].f1 for points in curves) - ALLOWED
        axes.axhline(
            level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=f"{ALLOWED:g} less"
        )
        axes.set(xlabel="million MACs", ylabel="validation F1")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=5, handletextpad=0.4)
        return saved(picture)
