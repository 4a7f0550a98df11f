"""Finished evaluations, kept so that a killed search goes on, and a finished one can be extended.

<folder>/<trial>-<epoch>-<hash of all that decides it>.json    the measure, and the state's hash
<folder>/<the same>.state                                      the packed state to go on from

The hash covers the task (rows, recipe, epochs, random address), the packed data, the code that
evaluates, and the versions of what it computes with, so no change gives a stale result. The state
is written first and both appear whole or not at all; what does not fit together is as good as
absent. States are dropped when their generation is over; of the measures, those that were used last
stay, within MAX_BYTES.
"""

import json
import os
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import weighin
from weighin.files import (
    canonical_json,
    fingerprint,
    read_json,
    sha256,
    sha256_file,
    sha256_tree,
    write_bytes,
    write_text,
)
from weighin.search.evaluation import Measured, Outcome, Task

MAX_BYTES = 256 * 2**20  # a measure takes about 5 bytes an image of the validation split
TORN = (OSError, ValueError, KeyError, TypeError)  # what reading a file that is not whole raises
NOT_EVALUATING = {"cli", "compress", "contest", "report"}  # packages; no evaluation imports them


class EvaluationCache:
    """The finished evaluations in a folder, for the images in the folder `packed`."""

    def __init__(self, folder: Path, packed: Path) -> None:
        self._folder = folder
        self._context = {"data": sha256_tree(packed), "code": _code(), "versions": _versions()}

    def find(self, task: Task) -> Measured | None:
        """Return the measure of a task that was finished."""
        path = self._path(task, "json")
        try:
            found = Measured.from_dict(read_json(path)["measured"])
            os.utime(path)  # it is used
        except TORN:
            return None
        return found

    def state(self, task: Task) -> bytes | None:
        """Return the state that a finished task ended in, or None where it is not whole."""
        try:
            expected = read_json(self._path(task, "json"))["state"]
            state = self._path(task, "state").read_bytes()
        except TORN:
            return None
        return state if sha256(state) == expected else None

    def add(self, task: Task, outcome: Outcome) -> None:
        """Keep what a finished task gave."""
        write_bytes(self._path(task, "state"), outcome.state)
        facts = {"measured": asdict(outcome.measured), "state": sha256(outcome.state)}
        write_text(self._path(task, "json"), json.dumps(facts, separators=(",", ":")))

    def trim(self) -> None:
        """Drop the states of a generation that is over, and the measures beyond MAX_BYTES."""
        for path in self._folder.glob("*.state"):
            path.unlink(missing_ok=True)
        measures = [(path.stat(), path) for path in self._folder.glob("*.json")]
        total = sum(found.st_size for found, _ in measures)
        for found, path in sorted(measures, key=lambda each: each[0].st_mtime_ns):
            if total <= MAX_BYTES:
                break
            path.unlink(missing_ok=True)
            total -= found.st_size

    def _path(self, task: Task, kind: str) -> Path:
        key = fingerprint(self._context | task.facts())
        return self._folder / f"{task.number}-{task.until}-{key}.{kind}"


def _code() -> str:
    """Return one hash for the files of this package that an evaluation may run."""
    root = Path(weighin.__file__).parent
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    hashes = {f: sha256_file(root / f) for f in files if f.split("/")[0] not in NOT_EVALUATING}
    return sha256(canonical_json(hashes).encode())


def _versions() -> list[str]:
    return [sys.version, *(f"{name} {version(name)}" for name in ("torch", "numpy"))]
