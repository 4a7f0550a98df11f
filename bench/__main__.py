"""Measures every figure and writes bench/results.json and docs/FIGURES.md: `python -m bench`.

`python -m bench face data` measures some parts. QUICK=1 takes fewer runs of smaller work, and only
of the parts where that means something. A figure's name means one thing for the life of the
project; one that was not measured (no photographs, no engine, QUICK) keeps its last value.
"""

import importlib
import sys
from pathlib import Path

from bench.figures import HEADLINES, TITLES, Figures, is_quick, told
from bench.pages import markdown, put
from weighin.determinism import pin
from weighin.files import read_json, write_json

QUICK_PARTS = ("face", "data", "grading", "training")
PARTS = (
    *QUICK_PARTS,
    "scale",
    "workers",
    "search",
    "rungs",
    "compress",
    "int8",
    "leaderboard",
    "unseen",
    "results",
)
RESULTS, PAGE, README = Path("bench/results.json"), Path("docs/FIGURES.md"), Path("README.md")


def main() -> None:
    """Measure, part by part; what is measured is written at once."""
    fewer = is_quick()
    asked = [part for part in sys.argv[1:] if part != "--quick"]
    found: Figures = read_json(RESULTS) if RESULTS.exists() else {}
    for part in asked or (QUICK_PARTS if fewer else PARTS):
        measured: Figures = importlib.import_module(f"bench.{part}").figures(fewer)
        print(told(measured), flush=True)
        found |= measured
        record(found)


def record(found: Figures) -> None:
    """Write the figures to the results, all of them to their page, five of them to the README."""
    write_json(RESULTS, found)
    put(PAGE, "figures", table(found))
    put(README, "figures", headlines(found))


def table(found: Figures) -> str:
    """Return the figures as a Markdown table, in the order of their names."""
    rows = (
        (
            TITLES[name],
            f"{figure['value']:,} {figure['unit']}",
            figure["target"],
            f"`{name}`",
            f"`{figure['command']}`",
            f"{figure.get('processor', 'not recorded')}, {figure.get('mode', 'full')}",
        )
        for name, figure in sorted(found.items())
    )
    return markdown(("what", "measured", "target", "name", "command", "processor, mode"), rows)


def headlines(found: Figures) -> str:
    """Return the figures that most readers want as a Markdown table."""
    rows = (
        (TITLES[name], f"{found[name]['value']:,} {found[name]['unit']}", found[name]["target"])
        for name in HEADLINES
        if name in found
    )
    return markdown(("what", "measured", "target"), rows)


if __name__ == "__main__":
    pin()
    main()
