"""Workers that are processes of this machine, each an executor of its own.

One pool for all would break as a whole when one of its processes is killed; so, a death costs one
evaluation.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from weighin.search.workers import Workers


class LocalWorkers(Workers):
    """So many processes, started when they are needed and gone when this one is."""

    lost = (BrokenProcessPool,)

    def __init__(self, count: int) -> None:
        self._count = count
        self._spawn = multiprocessing.get_context("spawn")  # inherits no threads and no locks
        self._held, self._leash = self._spawn.Pipe(duplex=False)
        self._slots: list[ProcessPoolExecutor] = []

    def close(self) -> None:
        """Let the workers go, in the middle of an evaluation if need be."""
        self._leash.close()
        for slot in self._slots:
            slot.shutdown(cancel_futures=True)
        self._held.close()

    def slots(self, tasks: int) -> list[Executor]:
        """Return one executor a process."""
        while len(self._slots) < min(self._count, tasks):
            self._slots.append(self._started())
        return list(self._slots)

    def renewed(self, slot: Executor) -> Executor:
        """Return another process for one that is dead."""
        slot.shutdown()
        place = self._slots.index(slot)  # type: ignore[arg-type]
        self._slots[place] = self._started()
        return self._slots[place]

    def look(self) -> None:
        """Do nothing: an executor notices by itself when its process dies."""

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._spawn, _on_leash, (self._held,))


def _on_leash(held: Connection) -> None:
    """Make a new worker leave as soon as the search closes the other end, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave, args=(held,), daemon=True).start()


def _leave(held: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        held.recv_bytes()
    os._exit(0)
