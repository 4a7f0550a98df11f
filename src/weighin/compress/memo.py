"""Measurements that survive a kill: a JSON file of numbers by name, written after each."""

import json
from collections.abc import Callable
from pathlib import Path

from weighin.files import read_json, write_json


class Memo:
    """Numbers that were measured before, and the means to measure the others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = _known(path)

    def __call__(self, name: str, measure: Callable[[], list[float]]) -> list[float]:
        """Return the numbers called `name`, measured only if they are not on file."""
        if name not in self.known:
            self.known[name] = measure()
            write_json(self.path, self.known)
        return self.known[name]


def _known(path: Path) -> dict[str, list[float]]:
    try:
        values = read_json(path)
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return dict(values) if isinstance(values, dict) else {}
