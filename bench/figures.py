"""What a figure is: the middle of some runs, its unit, its target and how to measure it again."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weighin.progress import say

Figures = dict[str, dict[str, Any]]


def figure(runs: list[float], unit: str, target: str, command: str) -> dict[str, Any]:
    """Return the middle of some runs as a figure."""
    value = round(statistics.median(runs), 3)
    return {"value": value, "unit": unit, "target": target, "runs": len(runs), "command": command}


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long `work` takes."""
    began = clock()
    work()
    return clock() - began


def is_quick() -> bool:
    """Return whether fewer runs of smaller work are wanted."""
    return "--quick" in sys.argv or os.environ.get("QUICK") == "1"


def without(photographs: Path) -> Figures:
    """Say that a room's figures cannot be measured here; they keep their last values."""
    say(f"{photographs} does not exist; name a folder that holds waste7 in WEIGHIN_DATA")
    return {}


def told(found: Figures) -> str:
    """Return figures as lines of text."""
    lines = (
        f"{name:<30} {figure['value']:>10} {figure['unit']:<6} {figure['target']}"
        for name, figure in found.items()
    )
    return "\n".join(lines)
