"""How things look, the same on the page, the model card and a contest's pages.

Numbers and rules become words. Templates become pages: every text is escaped, and a name that is
not given is an error. Figures become SVG: the same bytes everywhere on disk, and at home in a page,
in light and dark. Text in them stays text (a reader's browser has the fonts for any class name), so
every margin is fixed by hand: nothing depends on how wide a font is.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from weighin.grading.score import LIMITS, OUT_OF_CONTEST, own_formula
from weighin.params import Contest
from weighin.report.evaluation import Evaluation
from weighin.report.inputs import ReportData
from weighin.search.trials import StudyRecord

SEEN = (
    "The network was trained on the validation split too (train.all_data), so the figures on that "
    "split are those of images it has seen: they say nothing about unseen ones."
)
UNMEASURED = "No F1 is known: there are neither validation logits nor a truth for the test folder."
TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "page.css"
SPLITS = {"validation": "the validation split", "test": "the test folder"}
SCORE_PARTS = {
    "macs": "MACs part",
    "f1": "F1 part",
    "error": "error rate",
    "over_budget": "over the ceiling",
    "over_limit": "over a limit",
    "parameters": "parameters part",
    "operations": "operations part",
    "under_floor": "under the floor",
}
# Okabe and Ito's colors, told apart by color-blind readers: jfly.uni-koeln.de/color
INK, MUTED, GRID, PAPER = "#1f2328", "#57606a", "#d8dee4", "#ffffff"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
}
LOOK: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.parse_math": False,  # a class may be called "$"
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
}
POINTS = 72  # an inch
LARGE, SMALL = 6.8, 4.0  # rem an inch: with room, and on a phone, where wider figures scroll
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
REFERENCE = re.compile(r"url\(#([^)]+)\)")


@dataclass(frozen=True)
class Rules:
    """How a contest's score is made, and the numbers that a model is compared with."""

    formula: str
    floor: float | None = None  # F1 under which a model is lost
    macs: tuple[int, str] | None = None  # the MACs that a model's are a share of, and their name
    ceiling: int | None = None  # MACs above which a model is out


def environment(folder: Path) -> Environment:
    """Return what renders the templates of a folder."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )


def percent(value: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * value:.1f} %"


def interval(low: float, high: float) -> str:
    """Return a 95 % interval to four digits."""
    return f"{low:.4f} to {high:.4f}"


def several(many: int, noun: str) -> str:
    """Return a count and its noun in the right number."""
    return f"{many:,} {noun}" if many == 1 else f"{many:,} {noun}s"


def measured(value: float | None, digits: int = 4) -> str:
    """Return a number, or a dash where there is none (NaN too)."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def signed(difference: float) -> str:
    """Return a difference with its sign."""
    return f"{difference:+.4f}".replace("-", "−")


def under_floor(found: Evaluation) -> str:
    """Return how many resamples were under the floor: a count, never a certainty."""
    share, many = found.risk.under_floor, found.risk.resamples
    return f"{percent(share) if share else 'none'} of {many:,} resamples"


def macs_share(data: ReportData, contest: Contest) -> str:
    """Return the MACs as a share of those that the contest compares them with."""
    whole = rules(contest).macs
    if whole is None:
        return "not part of the score"
    return f"{percent(data.cost.macs / whole[0])} of {whole[1]} {whole[0]:,}"


def dataset_summary(data: ReportData) -> str:
    """Return the data set in two sentences, and in a third what the test shares with it."""
    found, splits = data.dataset, data.dataset.splits
    train, validation = sum(splits.train.values()), sum(splits.validation.values())
    shared = "".join(
        f" {several(len(data.test_copies), 'test image')} of the same bytes, such as {test} and "
        f"{image}: the test's figures are too good for that."
        for test, image in data.test_copies[:1]
    )
    return (
        f"{several(found.files, 'file')} checked and {found.images:,} images of "
        f"{len(splits.train)} classes kept: {train:,} to train on, {validation:,} to validate. "
        f"The largest class has {found.imbalance:g} times the images of the smallest.{shared}"
    )


def study_summary(found: StudyRecord) -> str:
    """Return what was tried and why the chosen one was."""
    states = [trial.state for trial in found.trials]
    counted = (f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    tried = several(len(states), "trial")
    return f"{tried}: {', '.join(counted)}. Chosen: {found.chosen}. {found.why}"


def compression_summary(data: ReportData) -> str:
    """Return what the factorization saved, and what 8 bits cost."""
    return " ".join(filter(None, [_factorization(data), _quantization(data)]))


def _quantization(data: ReportData) -> str:
    found = data.quantization
    if found is None or not found.enabled:
        return ""
    layers = sum(layer.quantized for layer in found.layers)
    return (
        f"{layers} of {len(found.layers)} layers with weights were quantized to 8 bits: F1 "
        f"{found.f1_before:.4f} became {found.f1_after:.4f} on the validation split, and "
        f"{found.bytes_before:,} bytes became {found.bytes_after:,}."
    )


def _factorization(data: ReportData) -> str:
    before = sum(layer.macs_before for layer in data.layers)
    after = sum(layer.macs_after for layer in data.layers)
    changed = sum(layer.method is not None for layer in data.layers)
    if not changed:
        return "No layer was factorized."
    return (
        f"{changed} of {len(data.layers)} layers were factorized; the convolutions and linear "
        f"layers together went from {before:,} to {after:,} MACs"
        + (f" ({percent(after / before)})." if before else ".")
    )


def export_reason(data: ReportData) -> str:
    """Return why the network was exported, as a sentence."""
    why = data.choice.why if data.choice else ""
    return f"{why[:1].upper()}{why[1:]}." if why else ""


def rules(contest: Contest) -> Rules:
    """Return the rules of the contest whose formula is `contest.score`, and its limits."""
    found = RULES.get(contest.score, _own)(contest)
    limits = [
        f"{value:,} {unit}"
        for name, (_, unit) in LIMITS.items()
        if name != "max_macs" and (value := getattr(contest, name)) is not None
    ]
    if not limits:
        return found
    told = f" Above {' or '.join(limits)} a model is out: {OUT_OF_CONTEST:g} is added."
    return replace(found, formula=found.formula + told)


def _waste(contest: Contest) -> Rules:
    worth = round(0.01 / contest.reference_f1 * contest.reference_macs)
    formula = (
        f"MACs / {contest.reference_macs:,} + the F1 part, which is 1 − F1 / "
        f"{contest.reference_f1:g}, half of that once F1 is past {contest.reference_f1:g}, and 1 "
        f"under the floor of {contest.floor_f1:g}. In between, 0.01 of F1 is worth {worth:,} MACs."
    )
    return Rules(formula, contest.floor_f1, (contest.reference_macs, "the reference's"))


def _accuracy(contest: Contest) -> Rules:
    formula = (
        f"the share of images labelled wrongly, by a model of at most {contest.max_macs:,} MACs; "
        f"above that ceiling {OUT_OF_CONTEST:g} is added."
    )
    return Rules(formula, macs=(contest.max_macs, "the ceiling of"), ceiling=contest.max_macs)


def _micronet(contest: Contest) -> Rules:
    formula = (
        f"parameters / {contest.reference_params:,} + MACs / {contest.reference_macs:,}, of a "
        f"model whose F1 reaches {contest.floor_f1:g}; under that floor {OUT_OF_CONTEST:g} is "
        "added. A number of b bits is b / 32 of a parameter, and of a MAC's product."
    )
    return Rules(formula, contest.floor_f1, (contest.reference_macs, "the reference's"))


def _own(contest: Contest) -> Rules:
    summary = (own_formula(contest.score).__doc__ or "").strip().partition("\n")[0]
    return Rules(f"the function `score` of {contest.score}{summary and f': {summary}'}")


# one for each formula of weighin.grading.score.FORMULAS
RULES: dict[str, Callable[[Contest], Rules]] = {
    "waste": _waste,
    "f1": lambda _: Rules("1 − macro F1. MACs do not count."),
    "accuracy": _accuracy,
    "micronet": _micronet,
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw inside this: the user's own matplotlibrc has no say, ids follow from `name`."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no glyph for a name: the browser that shows it has one
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(LOOK)
        matplotlib.rcParams["svg.hashsalt"] = name
        yield


def canvas(
    width: float, height: float, left: float, bottom: float, right: float = 0.15, top: float = 0.2
) -> tuple[Figure, Axes]:
    """Return a figure of `width` x `height` inches with one plot, its margins in inches too."""
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def saved(figure: Figure) -> str:
    """Return a figure as the text of an SVG file, without date or program name."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=nothing)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def inline(svg: str, name: str, alt: str) -> Markup:
    """Return an SVG file as an element for a page: described, scaled to its column, recolored.

    Ids get the prefix `name`, so that figures of one page do not mix up their clips and markers.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.split("}")[-1] in ("metadata", "style"):
                parent.remove(child)
    for part in root.iter():
        part.tag = part.tag.removeprefix(SVG)
        part.attrib = {
            key.removeprefix(XLINK): _attribute(key, value, name)
            for key, value in part.attrib.items()
        }
    inches = float(root.attrib["viewBox"].split()[2]) / POINTS
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "style": f"width: {inches * LARGE:.2f}rem; min-width: {inches * SMALL:.2f}rem",
        "role": "img",
        "aria-label": alt,
        "id": f"{name}-figure",
    }
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=False))


def shorten(text: str, most: int = 18) -> str:
    """Return a label of at most `most` characters on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == f"{XLINK}href":
        return f"#{name}-{value.removeprefix('#')}"
    value = REFERENCE.sub(rf"url(#{name}-\1)", value)
    if key == "style":
        for color, variable in VARIABLES.items():
            value = value.replace(color, variable)
        value = value.replace("'DejaVu Sans'", "inherit")
    return value
