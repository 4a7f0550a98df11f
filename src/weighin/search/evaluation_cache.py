"""Finished evaluations, kept so that a killed search goes on from them.

<folder>/<trial>-<epoch>-<hash of what was evaluated>.state   the packed state to go on from
<folder>/<the same>.json                                      the measure, and the state's hash

The state is written first and both appear whole or not at all; what does not fit together is as
good as absent. States are dropped when their generation is over, the measures stay.
"""

from dataclasses import asdict
from pathlib import Path

from weighin.files import read_json, sha256, write_bytes, write_json
from weighin.search.evaluation import Measured, Outcome, Task

TORN = (FileNotFoundError, ValueError, KeyError, TypeError)  # what reading such a file raises


class EvaluationCache:
    """The finished evaluations in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, task: Task) -> Measured | None:
        """Return the measure of a task that was finished."""
        try:
            return Measured.from_dict(read_json(self._path(task, "json"))["measured"])
        except TORN:
            return None

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
        write_json(self._path(task, "json"), facts)

    def drop_states(self) -> None:
        """Forget the states of a generation that is over."""
        for path in self._folder.glob("*.state"):
            path.unlink(missing_ok=True)

    def _path(self, task: Task, kind: str) -> Path:
        return self._folder / f"{task.key()}.{kind}"
