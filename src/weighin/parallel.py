"""Work in parallel: how many workers, and processes that never outlive the one that started them.

The number of workers changes the speed and never a byte. A terminal's Ctrl-C reaches every process
at once; only the first is to act on it, so the others are started with that signal blocked, and
leave as soon as the first closes their pipe or dies.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ParamSpec, TypeVar

from weighin.errors import ParamsError, WorkerError

# what torch imports with the first network that is built: 800 modules, 1.3 s and 115 MB in each
# process that is not forked from one that has them
LATE = "torch._dynamo"
P = ParamSpec("P")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def worker_count(setting: int | str, most: int) -> int:
    """Return how many workers `auto` or a number means, at most one a piece of work.

    WEIGHIN_WORKERS in the environment overrides the setting.

    Raises:
        ParamsError: WEIGHIN_WORKERS is neither.
    """
    chosen = str(os.environ.get("WEIGHIN_WORKERS", setting))
    if chosen != "auto" and not (chosen.isascii() and chosen.isdigit()):
        problem = f"WEIGHIN_WORKERS is {chosen}; it must be auto or a whole number"
        raise ParamsError(problem, "unset WEIGHIN_WORKERS, or set it to auto")
    return max(1, min(cores() if chosen == "auto" else int(chosen), most))


@contextlib.contextmanager
def workers(count: int, doing: str) -> Iterator[Executor]:
    """Yield the executor of `count` processes; one worker is this process itself.

    Raises:
        WorkerError: a process died while `doing` something, mostly for want of memory.
    """
    if count == 1:
        yield InProcess()
        return
    try:
        with Pool(count) as pool:
            yield pool
    except BrokenProcessPool:
        problem = f"a worker process went away while {doing}"
        fix = "free some memory or use fewer workers, then run the same command again"
        raise WorkerError(problem, fix) from None


class InProcess(Executor):
    """Does work in this process, as soon as it is submitted."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Do a piece of work and return what came of it."""
        future: Future[R] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Pool(ProcessPoolExecutor):
    """So many new processes, which inherit no threads, no locks and no streams.

    With modules to `preload` they are forked from one process that has imported these: eight that
    need torch are up in the time of one, and share its memory.
    """

    def __init__(self, count: int, preload: Sequence[str] = ()) -> None:
        context = multiprocessing.get_context("forkserver" if preload else "spawn")
        if preload:
            context.set_forkserver_preload(list(preload))
        self._reader, self._writer = context.Pipe(duplex=False)
        super().__init__(count, context, _watch, (self._reader,))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Hand out a piece of work.

        Raises:
            BrokenProcessPool: a process died, before this call or in the middle of it.
        """
        try:
            with interrupts_blocked():  # a process is started when there is work for it
                future = super().submit(fn, *args, **kwargs)
        except OSError:  # the thread that saw the death closed a pipe which a new process needs
            if not self._broken:
                raise
        if self._broken:  # and work that it had not seen by then would never be done
            raise BrokenProcessPool(self._broken)
        return future

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.shutdown()
        self.drop()

    def drop(self) -> None:
        """End the processes, in the middle of their work if need be."""
        self._writer.close()
        self.shutdown()
        self._reader.close()


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT here and in the processes that are started inside."""
    resource_tracker.ensure_running()  # as it starts it would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(pipe: Connection) -> None:
    """End this worker process when the other end of `pipe` is closed."""
    gc.freeze()  # or the first collection would write to, and so copy, all that forks share

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv_bytes()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
