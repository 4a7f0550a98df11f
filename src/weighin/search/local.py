"""Workers that are processes of this machine, each an executor of its own.

One pool for all would break as a whole when one of its processes is killed; so, a death costs one
evaluation.
"""

from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool

from weighin.processes import Pool
from weighin.search.workers import Workers


class LocalWorkers(Workers):
    """So many processes, started when they are needed and gone when this one is."""

    lost = (BrokenProcessPool,)

    def __init__(self, count: int) -> None:
        self._count = count
        self._slots: list[Pool] = []

    def close(self) -> None:
        """Let the workers go, in the middle of an evaluation if need be."""
        for slot in self._slots:
            slot.drop()

    def slots(self, tasks: int) -> list[Executor]:
        """Return one executor a process."""
        while len(self._slots) < min(self._count, tasks):
            self._slots.append(Pool(1))
        return list(self._slots)

    def renewed(self, slot: Executor) -> Executor:
        """Return another process for one that is dead."""
        place = self._slots.index(slot)  # type: ignore[arg-type]
        self._slots[place].drop()
        self._slots[place] = Pool(1)
        return self._slots[place]

    def look(self) -> None:
        """Do nothing: an executor notices by itself when its process dies."""
