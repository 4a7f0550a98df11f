"""Measures every figure and writes bench/results.json and the README's table: `python -m bench`.

`python -m bench face data` measures some rooms. QUICK=1 takes fewer runs of smaller work, and only
of the rooms where that means something. A figure's name means one thing for the life of the
project; one that was not measured (no photographs, no engine, QUICK) keeps its last value.
"""

import importlib
import sys
from pathlib import Path

from bench.figures import Figures, is_quick, told
from bench.pages import markdown, put
from weighin.determinism import pin
from weighin.files import read_json, write_json

QUICK_ROOMS = ("face", "data", "grading", "training")
ROOMS = (*QUICK_ROOMS, "search", "compress", "unseen", "results")
RESULTS, README = Path("bench/results.json"), Path("README.md")


def main() -> None:
    """Measure, room by room; what is measured is written at once."""
    fewer = is_quick()
    asked = [room for room in sys.argv[1:] if room != "--quick"]
    found: Figures = read_json(RESULTS) if RESULTS.exists() else {}
    for room in asked or (QUICK_ROOMS if fewer else ROOMS):
        measured: Figures = importlib.import_module(f"bench.{room}").figures(fewer)
        print(told(measured), flush=True)
        found |= measured
        record(found)


def record(found: Figures) -> None:
    """Write the figures to the results and to the README's table."""
    write_json(RESULTS, found)
    put(README, "figures", table(found))


def table(found: Figures) -> str:
    """Return the figures as a Markdown table, in the order of their names."""
    rows = (
        (name, f"{figure['value']:,} {figure['unit']}", figure["target"], f"`{figure['command']}`")
        for name, figure in sorted(found.items())
    )
    return markdown(("figure", "measured", "target", "command"), rows)


if __name__ == "__main__":
    pin()
    main()
