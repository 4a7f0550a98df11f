"""The workers of a search: processes of this machine, or those of a Dask cluster.

Both are `concurrent.futures` executors. A worker that dies takes its evaluations with it, and these
are run again: an evaluation is a pure function of its task, so nobody can tell afterwards.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from weighin.errors import WorkerError
from weighin.progress import say
from weighin.training.team import worker_count

T = TypeVar("T")
R = TypeVar("R")
RETRIES = 3  # times in a row that workers may go away without finishing anything
MEND = "run the same command again: finished evaluations are kept"


class Workers:
    """Runs a function on tasks, each on one worker, until all are done."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None
        self._leash: Connection | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yield (place of a task, its result) in the order in which they finish.

        Raises:
            WorkerError: workers went away again and again.
        """
        waiting, failures = dict(enumerate(tasks)), 0
        while waiting:
            before = len(waiting)
            for place, result in self._once(function, dict(waiting)):
                del waiting[place]
                yield place, result
            if waiting:
                failures = 0 if len(waiting) < before else failures + 1
                self._lost(len(waiting), failures)

    def _once(self, function: Callable[[T], R], tasks: dict[int, T]) -> Iterator[tuple[int, R]]:
        """Yield what gets done until a worker goes away."""
        pool = self._pool or self._start()
        places: dict[Future[R], int] = {}
        with contextlib.suppress(BrokenProcessPool):
            for place, task in tasks.items():
                places[pool.submit(function, task)] = place
        for future in as_completed(places):
            with contextlib.suppress(BrokenProcessPool):
                yield places[future], future.result()

    def _lost(self, evaluations: int, failures: int) -> None:
        self._stop()
        if failures > RETRIES:
            problem = f"worker processes went away {failures} times in a row (killed, or no memory)"
            raise WorkerError(problem, f"lower `workers`, then {MEND}")
        say(f"a worker went away: running {evaluations} evaluations again")

    def _start(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        held, self._leash = spawn.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self.count, spawn, _on_leash, (held,))
        return self._pool

    def _stop(self) -> None:
        if self._leash is not None:
            self._leash.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = self._leash = None


def _on_leash(held: Connection) -> None:
    """Make a new worker leave as soon as the search closes the other end, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave, args=(held,), daemon=True).start()


def _leave(held: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        held.recv_bytes()
    os._exit(0)


def workers(setting: int | str, cluster: str | None, most: int) -> Workers:
    """Return the workers that params name, at most one a trial of a generation."""
    return Workers(worker_count(setting, most))
