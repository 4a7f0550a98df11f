"""Figures as SVG: the same bytes everywhere on disk, and at home in a page, in light and dark.

Text stays text (a reader's browser has the fonts for any class name), so every margin is fixed by
hand: nothing depends on how wide a font is.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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
STYLE: Any = {
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


@contextmanager
def style(name: str) -> Iterator[None]:
    """Draw inside this: the user's own matplotlibrc has no say, ids follow from `name`."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no glyph for a name: the browser that shows it has one
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
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
