"""Processes that do pieces of work and never outlive the one that started them.

A terminal's Ctrl-C reaches every process at once; only the first is to act on it, so the others are
started with that signal blocked, and leave as soon as the first lets go of them or dies.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes inside this: they inherit that an interrupt waits."""
    resource_tracker.ensure_running()  # as it starts it would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Pool(ProcessPoolExecutor):
    """So many spawned processes, which inherit no threads, no locks and no streams."""

    def __init__(self, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._held, self._leash = spawn.Pipe(duplex=False)
        super().__init__(count, spawn, _on_leash, (self._held,))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Hand out a piece of work."""
        with undisturbed():  # a process is started when there is work for it
            return super().submit(fn, *args, **kwargs)

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
        """Let the processes go, in the middle of their work if need be."""
        self._leash.close()
        self.shutdown()
        self._held.close()


def _on_leash(held: Connection) -> None:
    threading.Thread(target=_leave, args=(held,), daemon=True).start()


def _leave(held: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        held.recv_bytes()
    os._exit(0)
