"""The workers of a search: processes of this machine, or of a Dask cluster (cluster.py).

Both are `concurrent.futures` executors. A worker that dies takes its evaluation with it, and that
is run again: an evaluation is a pure function of its task, so nobody can tell afterwards.
"""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Self, TypeVar

from weighin.errors import WorkerError
from weighin.parallel import LATE, Pool
from weighin.progress import say

T = TypeVar("T")
R = TypeVar("R")
RETRIES = 3  # times that the worker of one evaluation may go away
PRELOAD = ("weighin.search.evaluation", LATE)
LOOK = 5.0  # seconds between looks at the workers
FIX = "run the same command again: finished evaluations are kept"


class Workers(ABC):
    """Runs a function on tasks until all are done; a slot is an executor that takes one task."""

    lost: tuple[type[BaseException], ...]  # what a future raises whose worker went away

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let the workers go, in the middle of an evaluation if need be."""

    @abstractmethod
    def slots(self, tasks: int) -> list[Executor]:
        """Return the executors for so many tasks, one for each task that may run at a time."""

    @abstractmethod
    def renewed(self, slot: Executor) -> Executor:
        """Return a slot in the place of one whose worker went away."""

    @abstractmethod
    def look(self, finished: int) -> None:
        """Look after the workers, of which so many have just finished a task or went away.

        Raises:
            WorkerError: there are none.
        """

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yield (place of a task, its result) in the order in which they finish.

        Raises:
            WorkerError: the workers of one evaluation went away again and again.
        """
        waiting, free = deque(range(len(tasks))), self.slots(len(tasks))
        running: dict[Future[R], tuple[int, Executor]] = {}
        failures: Counter[int] = Counter()
        while waiting or running:
            while waiting and free:
                place, slot = waiting.popleft(), free.pop()
                running[self._submitted(slot, function, tasks[place])] = place, slot
            finished, _ = wait(running, LOOK, FIRST_COMPLETED)
            self.look(len(finished))
            for future in finished:
                place, slot = running.pop(future)
                try:
                    result = future.result()
                except self.lost:
                    failures[place] += 1
                    if failures[place] > RETRIES:
                        raise _gone_too_often(failures[place]) from None
                    say("a worker went away: its evaluation is run again")
                    free.append(self.renewed(slot))
                    waiting.appendleft(place)
                else:
                    free.append(slot)
                    yield place, result

    def _submitted(self, slot: Executor, function: Callable[[T], R], task: T) -> Future[R]:
        try:
            return slot.submit(function, task)
        except self.lost as error:  # its worker went away while it had nothing to do
            future: Future[R] = Future()
            future.set_exception(error)
            return future


def _gone_too_often(times: int) -> WorkerError:
    problem = f"the workers of one evaluation went away {times} times (killed, or no memory)"
    return WorkerError(problem, f"lower `workers` or `recipe.shard_size`, then {FIX}")


class LocalWorkers(Workers):
    """So many processes, started when they are needed and gone when this one is.

    Each is an executor of its own: one pool for all would break as a whole when one of its
    processes is killed.
    """

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
            self._slots.append(Pool(1, PRELOAD))
        return list(self._slots)

    def renewed(self, slot: Executor) -> Executor:
        """Return another process for one that is dead."""
        place = self._slots.index(slot)  # type: ignore[arg-type]
        self._slots[place].drop()
        self._slots[place] = Pool(1, PRELOAD)
        return self._slots[place]

    def look(self, finished: int) -> None:
        """Do nothing: an executor notices by itself when its process dies."""
