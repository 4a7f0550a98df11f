"""The workers of one training run: who does which shards, and how the pieces come together.

Pieces are gathered as they are and added in shard order by everyone, so the result does not depend
on how many workers there are. Workers talk over gloo: local processes started here, or the ranks
of `torchrun`.
"""

import atexit
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from weighin.errors import WorkerError
from weighin.processes import undisturbed

R = TypeVar("R")
PATIENCE = timedelta(minutes=5)  # with a worker whose host fell silent; a killed one shows at once
FIX = "run the same command again: it goes on from the last finished epoch"


class Team:
    """The workers of a run; this one is `rank` of `size`."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def mine(self, pieces: int) -> range:
        """Return which of so many pieces, numbered in order, are this worker's."""
        slots = -(-pieces // self.size)
        return range(min(self.rank * slots, pieces), min((self.rank + 1) * slots, pieces))

    def gather(self, rows: Tensor, pieces: int) -> Tensor:
        """Return all pieces (pieces, P) in order, given this worker's own rows (mine, P).

        Raises:
            WorkerError: another worker went away.
        """
        if self.size == 1:
            return rows
        slots = -(-pieces // self.size)
        sent = rows.new_zeros(slots, rows.shape[1])
        sent[: len(rows)] = rows
        out = [torch.empty_like(sent) for _ in range(self.size)]
        self._talk(lambda: dist.all_gather(out, sent))
        return torch.cat(out)[:pieces]

    def share(self, data: bytes) -> bytes:
        """Return the first worker's bytes on every worker."""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        self._talk(lambda: dist.broadcast(length, 0))
        body = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0 and data:
            body.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self._talk(lambda: dist.broadcast(body, 0))
        return body.numpy().tobytes()

    @staticmethod
    def _talk(exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:120]
            raise WorkerError(f"a training worker went away ({reason})", FIX) from None


def under_torchrun() -> bool:
    """Whether this process is a rank of `torchrun`."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes: not a later rank of `torchrun`."""
    return int(os.environ.get("RANK", 0)) == 0 or not under_torchrun()


def work(function: Callable[..., R], workers: int, *arguments: Any) -> R:
    """Return ``function(team, *arguments)``, run by `workers` processes of which this is the first.

    Under torchrun its ranks are the workers. `function` and its arguments go to the others by
    multiprocessing, so they must be importable and small.

    Raises:
        WorkerError: another worker went away; those that are left have ended.
    """
    if under_torchrun():
        return function(_rank_of_torchrun(), *arguments)
    if workers == 1:
        return function(Team(), *arguments)
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        with _others(function, meeting, workers, arguments), _joined(meeting, 0, workers) as team:
            return function(team, *arguments)


@contextlib.contextmanager
def _others(
    function: Callable[..., Any], meeting: str, size: int, arguments: tuple[Any, ...]
) -> Iterator[None]:
    """Start every worker but the first, wait until each is up, and end them with the block."""
    context = get_context("forkserver")  # one import of torch for all workers of all jobs
    context.set_forkserver_preload(["weighin.training.forked", "weighin.training.loop"])
    started: list[_Other] = []
    try:
        for rank in range(1, size):
            ear, mouth = context.Pipe(duplex=False)
            parts = (function, meeting, rank, size, arguments, mouth)
            process = context.Process(target=_member, args=parts, daemon=True)
            with undisturbed():
                process.start()
            mouth.close()
            started.append(_Other(process, ear))
        for other in started:
            other.await_start()
        yield
        for other in started:
            other.process.join(PATIENCE.total_seconds())
    except WorkerError as error:
        ends = [end for other in started if (end := other.end())]
        raise WorkerError(ends[0] if ends else error.problem, error.fix) from None
    finally:
        for other in started:
            other.process.kill()


@dataclass(frozen=True)
class _Other:
    """A worker that this process started, and the pipe that it speaks into."""

    process: ForkServerProcess
    ear: Connection

    def await_start(self) -> None:
        """Return when the worker is up; one that died first would be waited for in vain."""
        try:
            self.ear.recv_bytes()
        except EOFError:
            self.process.join()
            raise WorkerError("a training worker did not start", FIX) from None

    def end(self) -> str:
        """Return how the worker failed, in words; empty where it did not, or only followed."""
        self.process.join(1)
        code = self.process.exitcode
        if code is None or code == 0:
            return ""
        with contextlib.suppress(EOFError):
            return f"a training worker failed: {self.ear.recv_bytes().decode()}"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"a training worker {how}"


def _member(
    function: Callable[..., Any],
    meeting: str,
    rank: int,
    size: int,
    arguments: tuple[Any, ...],
    told: Connection,
) -> None:
    Thread(target=_end_with_the_first, daemon=True).start()
    try:
        told.send_bytes(b"up")
        with _joined(meeting, rank, size) as team:
            function(team, *arguments)
    except (WorkerError, BrokenPipeError):
        pass  # another went away: not this one's story
    except Exception as error:  # the first worker tells the user
        told.send_bytes(f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os._exit(0)  # torch takes a second to unload


def _end_with_the_first() -> None:
    first = parent_process()
    assert first is not None
    first.join()
    os._exit(1)


@contextlib.contextmanager
def _joined(meeting: str, rank: int, size: int) -> Iterator[Team]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        yield Team(rank, size)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


@cache
def _rank_of_torchrun() -> Team:
    """Return this rank; its group lives as long as the process, for a store serves one group."""
    dist.init_process_group("gloo", timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    return Team(dist.get_rank(), dist.get_world_size())
