"""The workers of one training run: who does which shards, and how the pieces come together.

Pieces are gathered as they are and added in shard order by everyone, so the result does not depend
on how many workers there are. Workers talk over gloo: local processes started here, or the ranks
of `torchrun`.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from weighin.errors import WorkerError

R = TypeVar("R")
MEND = "run the same command again: it goes on from the last finished epoch"


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
            raise WorkerError(f"a training worker went away ({reason})", MEND) from None


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def worker_count(setting: int | str, most: int) -> int:
    """Return how many workers `auto` or a number means, at most one a piece of work.

    WEIGHIN_WORKERS in the environment overrides the setting: it changes the speed, never a byte.
    """
    chosen = os.environ.get("WEIGHIN_WORKERS", setting)
    return max(1, min(cores() if chosen == "auto" else int(chosen), most))


def under_torchrun() -> bool:
    """Whether this process is a rank of `torchrun`."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def work(function: Callable[..., R], workers: int, *arguments: Any) -> R:
    """Return ``function(team, *arguments)``, run by `workers` processes of which this is the first.

    Under torchrun its ranks are the workers. `function` and its arguments go to the others by
    multiprocessing, so they must be importable and small.
    """
    if under_torchrun():
        with _joined("env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) as team:
            return function(team, *arguments)
    if workers == 1:
        return function(Team(), *arguments)
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        context = get_context("spawn")
        others = [
            context.Process(
                target=_member, args=(function, meeting, rank, workers, arguments), daemon=True
            )
            for rank in range(1, workers)
        ]
        for other in others:
            other.start()
        try:
            with _joined(meeting, 0, workers) as team:
                return function(team, *arguments)
        finally:
            for other in others:
                other.join(10)
                other.kill()


def _member(
    function: Callable[..., Any], meeting: str, rank: int, size: int, arguments: tuple[Any, ...]
) -> None:
    with contextlib.suppress(KeyboardInterrupt), Path(os.devnull).open("w") as quiet:
        sys.stderr = quiet  # the first worker tells what there is to tell
        with _joined(meeting, rank, size) as team:
            function(team, *arguments)


@contextlib.contextmanager
def _joined(meeting: str, rank: int, size: int) -> Iterator[Team]:
    if meeting.startswith("file:"):
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    try:
        yield Team(rank, size)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
