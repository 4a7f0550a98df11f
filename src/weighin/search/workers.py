"""The workers of a search, whatever they are: `local.py` or `cluster.py`.

Both are `concurrent.futures` executors. A worker that dies takes its evaluation with it, and that
is run again: an evaluation is a pure function of its task, so nobody can tell afterwards.
"""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import ClassVar, Self, TypeVar

from weighin.errors import WorkerError
from weighin.progress import say

T = TypeVar("T")
R = TypeVar("R")
RETRIES = 3  # times that the worker of one evaluation may go away
LOOK = 5.0  # seconds between looks at the workers
FIX = "run the same command again: finished evaluations are kept"


class Workers(ABC):
    """Runs a function on tasks until all are done; a slot is an executor that takes one task."""

    lost: ClassVar[tuple[type[BaseException], ...]]  # what a future raises whose worker went away

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
    def look(self) -> None:
        """Look after the workers while nothing is finished.

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
            if not finished:
                self.look()
            for future in finished:
                place, slot = running.pop(future)
                try:
                    result = future.result()
                except self.lost:
                    failures[place] += 1
                    _complain(failures[place])
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


def _complain(failures: int) -> None:
    if failures > RETRIES:
        problem = f"the workers of one evaluation went away {failures} times (killed, or no memory)"
        raise WorkerError(problem, f"lower `workers` or `recipe.shard_size`, then {FIX}")
    say("a worker went away: its evaluation is run again")
