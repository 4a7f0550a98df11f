"""The processes that read images: they stay from the first image to the last contact sheet."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from weighin.errors import WorkerError
from weighin.processes import Pool

P = ParamSpec("P")
T = TypeVar("T")


class Here(Executor):
    """Does work in this process, as soon as it is submitted."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do a piece of work and return what came of it."""
        future: Future[T] = Future()
        future.set_result(work(*args, **kwargs))
        return future


@contextlib.contextmanager
def readers(workers: int) -> Iterator[Executor]:
    """Yield the executor of so many processes; of one, it is this one.

    Raises:
        WorkerError: a worker process died, mostly for want of memory.
    """
    if workers == 1:
        yield Here()
        return
    try:
        with Pool(workers) as pool:
            yield pool
    except BrokenProcessPool:
        problem = "a worker process went away while it read images"
        fix = "free some memory or use fewer workers, then run the same command again"
        raise WorkerError(problem, fix) from None
