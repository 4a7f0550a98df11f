"""Measures every figure and writes bench/results.json and the README's table: `python -m bench`.

`python -m bench face data` measures some rooms; QUICK=1 takes fewer runs of smaller work. A
figure's name means one thing for the life of the project; one that cannot be measured here (no
photographs, no engine) keeps its last value.
"""

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from weighin.determinism import pin
from weighin.files import read_json, write_json, write_text

ROOMS = ("face", "data", "grading", "training", "compress")
RESULTS, README = Path("bench/results.json"), Path("README.md")
TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.DOTALL)
Figures = dict[str, dict[str, Any]]


def main() -> None:
    """Measure, room by room; what is measured is written at once."""
    quick = os.environ.get("QUICK") == "1"
    found: Figures = read_json(RESULTS) if RESULTS.exists() else {}
    for room in sys.argv[1:] or ROOMS:
        measured: Figures = importlib.import_module(f"bench.{room}").figures(quick)
        found |= measured
        for name, figure in measured.items():
            print(f"{name:<30} {figure['value']:>10} {figure['unit']:<6} {figure['target']}")
        write_json(RESULTS, found)
    write_text(README, TABLE.sub(lambda _: table(found), README.read_text(encoding="utf-8")))


def table(found: Figures) -> str:
    """Return the figures as a Markdown table, in the order of their names."""
    rows = [
        f"| {name} | {figure['value']:g} {figure['unit']} | {figure['target']} | "
        f"`{figure['command']}` |"
        for name, figure in sorted(found.items())
    ]
    return "\n".join(["| figure | measured | target | command |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    pin()
    main()
