"""What a figure is: the middle of some runs, its unit, its target and how to measure it again."""

import statistics
from typing import Any


def figure(runs: list[float], unit: str, target: str, command: str) -> dict[str, Any]:
    """Return the middle of some runs as a figure."""
    value = round(statistics.median(runs), 3)
    return {"value": value, "unit": unit, "target": target, "runs": len(runs), "command": command}
