"""The processes of one training run: which shards each computes, and how the rows are gathered.

Rows are gathered as they are and added in shard order by every process, so the result does not
depend on the number of processes. Local processes, started here by a server that never touches a
GPU, lay them in memory that they share; the ranks of `torchrun` send them over gloo, and processes
that have a GPU each over NCCL.
"""

import atexit
import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from weighin.errors import WorkerError
from weighin.parallel import LATE, interrupts_blocked

R = TypeVar("R")
PATIENCE = timedelta(minutes=5)  # with a process whose host fell silent; a killed one shows at once
AWAKE, NAP, END = 0.02, 0.001, 10.0  # seconds
NCCL = "cuda:nccl"
FIX = "run the same command again: it goes on from the last finished epoch"


class ProcessGroup:
    """The processes of a run; this one is `rank` of `size`; local ones share memory."""

    def __init__(self, rank: int = 0, size: int = 1, local: bool = False) -> None:
        self.rank, self.size, self.local = rank, size, local
        self._shared, self._turn = torch.zeros(2, 0), 0
        self._arrived = np.zeros(size, np.int32)  # how often each process has come to a meeting
        self.sentinels: list[int] = []  # of the other processes, in the first: they end with those

    def local_shards(self, shards: int) -> range:
        """Return which of so many shards, numbered in order, this process computes."""
        slots = -(-shards // self.size)
        return range(min(self.rank * slots, shards), min((self.rank + 1) * slots, shards))

    def all_gather(self, rows: Tensor, shards: int) -> Tensor:
        """Return all rows (shards, T) in order, given those of this process's shards.

        They may be overwritten from the next call on.

        Raises:
            WorkerError: another process ended.
        """
        if self.size == 1:
            return rows
        if self.local and not self.nccl:
            return self._gather_in_memory(rows, shards)
        slots = -(-shards // self.size)
        # gloo gathers in the processor's memory, NCCL from GPU to GPU
        sent = rows.new_zeros(slots, rows.shape[1], device=None if self.nccl else "cpu")
        sent[: len(rows)] = rows
        out = [torch.empty_like(sent) for _ in range(self.size)]
        with _exchange():
            dist.all_gather(out, sent)
        return torch.cat(out)[:shards].to(rows.device)

    def _gather_in_memory(self, rows: Tensor, shards: int) -> Tensor:
        """Return all rows by way of memory that every process maps.

        Two halves take turns: before one is written again, all processes have met at the other.
        """
        numbers = shards * rows.shape[1]
        if self._shared.shape[1] < numbers:
            self._shared = self._shared_memory(2 * numbers).view(2, numbers)
            self._arrived = self._shared_memory(self.size).numpy().view(np.int32)
        self._turn = 1 - self._turn
        gathered = self._shared[self._turn][:numbers].view(shards, -1)
        own = self.local_shards(shards)
        gathered[own.start : own.stop] = rows
        self._meet()
        return gathered.to(rows.device)

    def _meet(self) -> None:
        """Return when all processes of this machine are here, awake for the first AWAKE seconds.

        A core that sleeps takes 2 ms to wake on a virtual machine, a tenth of a step of a small
        network. The first process sees whether another ended; all end with the first.
        """
        if platform.machine() not in ("x86_64", "AMD64"):  # which keeps the order of what is stored
            with _exchange():
                dist.barrier()
            return
        self._arrived[self.rank] += 1
        began = time.perf_counter()
        while self._misses_others():
            waited = time.perf_counter() - began
            if waited < AWAKE:
                os.sched_yield()
                continue
            lost = wait(self.sentinels, NAP) or waited > PATIENCE.total_seconds()
            if lost and self._misses_others():  # it may have come, and ended
                raise WorkerError("a training worker went away", FIX)

    def _misses_others(self) -> bool:
        """Whether another process has not come yet to the meeting that this one is at."""
        return bool((self._arrived < self._arrived[self.rank]).any())

    def _shared_memory(self, numbers: int) -> Tensor:
        """Return float32 memory (numbers,) of no file, which every process of the group maps."""
        path, file = b"", -1
        if self.rank == 0:
            file = os.memfd_create("rows")
            path = f"/proc/{os.getpid()}/fd/{file}".encode()
        memory = torch.from_file(self.broadcast(path).decode(), shared=True, size=numbers)
        with _exchange():
            dist.barrier()
        if self.rank == 0:
            os.close(file)
        return memory

    @property
    def nccl(self) -> bool:
        """Whether the processes have a GPU each: NCCL refuses two of them on one."""
        return self.size > 1 and NCCL in dist.get_backend_config()

    def broadcast(self, data: bytes) -> bytes:
        """Return the bytes of rank 0, in every process.

        Raises:
            WorkerError: another process ended.
        """
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        with _exchange():
            dist.broadcast(length, 0)
        body = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            body.numpy()[:] = np.frombuffer(data, np.uint8)
        with _exchange():
            dist.broadcast(body, 0)
        return body.numpy().tobytes()


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:120]
        raise WorkerError(f"a training worker went away ({reason})", FIX) from None


def under_torchrun() -> bool:
    """Whether this process is a rank of `torchrun`."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes: not a later rank of `torchrun`."""
    return int(os.environ.get("RANK", 0)) == 0 or not under_torchrun()


def launch(function: Callable[..., R], workers: int, *arguments: Any) -> R:
    """Return ``function(group, *arguments)``, run by `workers` processes; this one is the first.

    Under torchrun its ranks are the workers. `function` and its arguments go to the others by
    multiprocessing, so they must be importable and small.

    Raises:
        WorkerError: another worker went away; those that are left have ended.
    """
    if under_torchrun():
        return function(_rank_of_torchrun(), *arguments)
    if workers == 1:
        return function(ProcessGroup(), *arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = (Path(folder) / "store").as_uri()
        with (
            _others(function, store, workers, arguments) as sentinels,
            _joined(store, 0, workers) as group,
        ):
            group.sentinels = sentinels
            return function(group, *arguments)


@dataclass(frozen=True)
class _Worker:
    """A worker that this process started, and the pipe that it writes to."""

    process: ForkServerProcess
    reader: Connection

    def await_start(self) -> None:
        """Return when the worker is up; one that died first would be waited for in vain."""
        try:
            self.reader.recv_bytes()
        except EOFError:
            self.process.join()
            raise WorkerError("a training worker did not start", FIX) from None

    def failure(self) -> str:
        """Return how the worker failed, in words; empty where it did not, or only followed."""
        self.process.join(1)
        code = self.process.exitcode
        if code is None or code == 0:
            return ""
        with contextlib.suppress(EOFError):
            return f"a training worker failed: {self.reader.recv_bytes().decode()}"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"a training worker {how}"


@contextlib.contextmanager
def _others(
    function: Callable[..., Any], store: str, size: int, arguments: tuple[Any, ...]
) -> Iterator[list[int]]:
    """Start every worker but the first, wait until each is up, and end them with the block.

    Yields what is ready to be read when a worker has ended.
    """
    context = get_context("forkserver")  # one import of torch for all workers of all jobs
    context.set_forkserver_preload(["weighin.training.forked", "weighin.training.trainer", LATE])
    started: list[_Worker] = []
    try:
        for rank in range(1, size):
            reader, writer = context.Pipe(duplex=False)
            parts = (function, store, rank, size, arguments, writer)
            process = context.Process(target=_run, args=parts, daemon=True)
            with interrupts_blocked():
                process.start()
            writer.close()
            started.append(_Worker(process, reader))
        for worker in started:
            worker.await_start()
        yield [worker.process.sentinel for worker in started]
        for worker in started:
            worker.process.join(PATIENCE.total_seconds())
    except WorkerError as error:
        wait([worker.process.sentinel for worker in started], END)  # it may be ending still
        failures = [failure for worker in started if (failure := worker.failure())]
        raise WorkerError(failures[0] if failures else error.problem, error.fix) from None
    finally:
        for worker in started:
            worker.process.kill()


def _run(
    function: Callable[..., Any],
    store: str,
    rank: int,
    size: int,
    arguments: tuple[Any, ...],
    writer: Connection,
) -> None:
    Thread(target=_end_with_the_first, daemon=True).start()
    try:
        writer.send_bytes(b"up")
        with _joined(store, rank, size) as group:
            function(group, *arguments)
    except (WorkerError, BrokenPipeError):
        pass  # another worker went away: that one is reported
    except Exception as error:  # the first worker reports it
        writer.send_bytes(f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os._exit(0)  # torch takes a second to unload


def _end_with_the_first() -> None:
    first = parent_process()
    assert first is not None
    first.join()
    os._exit(1)


@contextlib.contextmanager
def _joined(store: str, rank: int, size: int) -> Iterator[ProcessGroup]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        _backend(size), init_method=store, rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        yield ProcessGroup(rank, size, local=True)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _backend(size: int) -> str:
    """Return who carries tensors between so many processes of this machine."""
    return f"cpu:gloo,{NCCL}" if torch.cuda.device_count() >= size else "gloo"


@cache
def _rank_of_torchrun() -> ProcessGroup:
    """Return this rank; its group lives as long as the process, for a store serves one group."""
    dist.init_process_group(_backend(int(os.environ["LOCAL_WORLD_SIZE"])), timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    return ProcessGroup(dist.get_rank(), dist.get_world_size())
