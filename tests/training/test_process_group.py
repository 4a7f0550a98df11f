"""The same bytes for any number of workers, however they are started; and none that hangs."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_job import RECIPE, make_job

from conftest import Run, digest
from weighin.errors import WorkerError
from weighin.files import sha256_file, write_bytes
from weighin.training.process_group import ProcessGroup, launch
from weighin.training.train import train_job
from weighin.training.trainer import Job, fit
from weighin.training.weights import write_weights

pytestmark = pytest.mark.serial
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]


def trained(packed: Path, folder: Path, workers: int = 1, seed: int = 1) -> str:
    """Return the digest of the small job's weights."""
    job = make_job(packed, address=(seed, "t"))
    result = train_job("train", job, workers, folder)
    write_weights(folder / "weights", result.weights)
    return sha256_file(folder / "weights")


@pytest.fixture(scope="module")
def alone(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a run of one worker."""
    return trained(packed, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_local_workers_give_the_bytes_of_one(
    packed: Path, tmp_path: Path, alone: str, workers: int
) -> None:
    assert trained(packed, tmp_path, workers) == alone


def test_eight_local_workers_give_the_bytes_of_one(packed: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, shards=8, shard_size=2)
    job = make_job(packed, recipe=recipe, epochs=2)
    alone, all_eight = (
        train_job("train", job, workers, tmp_path / f"{workers}").weights for workers in (1, 8)
    )
    assert {name: values.tobytes() for name, values in all_eight.items()} == {
        name: values.tobytes() for name, values in alone.items()
    }


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.cluster)])
def test_torchrun_gives_the_bytes_of_one(run: Run, alone: str, ranks: int) -> None:
    assert digest(run(launcher=[*TORCHRUN, str(ranks)])) == alone


def test_another_clock_language_and_hash_seed_give_the_same_bytes(run: Run, alone: str) -> None:
    env = {"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    assert digest(run(env=env)) == alone


def test_another_seed_gives_other_bytes(packed: Path, tmp_path: Path, alone: str) -> None:
    assert trained(packed, tmp_path, seed=2) != alone


def test_another_worker_count_goes_on_to_the_same_bytes(
    packed: Path, tmp_path: Path, alone: str
) -> None:
    job = make_job(packed, address=(1, "t"))
    half = launch(_half, 2, job)
    write_bytes(tmp_path / "train.state", half)
    assert trained(packed, tmp_path, workers=3) == alone


def _half(group: ProcessGroup, job: Job) -> bytes:
    return fit(group, job, until=2).state


def test_shards_are_divided_in_order() -> None:
    assert [list(ProcessGroup(rank, 3).local_shards(7)) for rank in range(3)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
    assert [list(ProcessGroup(rank, 4).local_shards(5)) for rank in range(4)] == [
        [0, 1],
        [2, 3],
        [4],
        [],
    ]


def _all_gather(group: ProcessGroup, shards: int) -> list[float]:
    import torch

    rows = torch.tensor([[float(shard), 0.5] for shard in group.local_shards(shards)])
    return group.all_gather(rows.reshape(-1, 2), shards)[:, 0].tolist()


def test_all_gather_returns_every_shard_in_order() -> None:
    assert launch(_all_gather, 3, 7) == [0, 1, 2, 3, 4, 5, 6]


def _gathers_of_many_widths(group: ProcessGroup) -> int:
    """Return how many gathers were right, by a process that looks at them late."""
    import torch

    right = 0
    for turn, width in enumerate([3, 1, 70_000, 2, 70_000, 140_001, 5] * 3):
        of = [1000.0 * turn + shard for shard in range(5)]
        rows = torch.tensor([of[shard] for shard in group.local_shards(5)])
        found = group.all_gather(rows[:, None].expand(-1, width), 5)
        if turn % 3 == group.rank:
            time.sleep(0.01)  # the others are ahead
        right += torch.equal(found, torch.tensor(of)[:, None].expand_as(found))
    return right


def test_a_gather_is_whole_until_the_next() -> None:
    assert launch(_gathers_of_many_widths, 3) == 21


def test_more_workers_than_shards() -> None:
    assert launch(_all_gather, 3, 2) == [0, 1]


def _broadcast(group: ProcessGroup, data: bytes) -> bytes:
    other = group.broadcast(data if group.rank == 0 else b"not this")
    assert other == data
    return other


@pytest.mark.parametrize("data", [b"", b"\0one\xff"])
def test_broadcast_gives_the_first_workers_bytes(data: bytes) -> None:
    assert launch(_broadcast, 2, data) == data


def _fails(group: ProcessGroup, how: str) -> None:
    import os
    import signal

    import torch

    if group.rank == 1:
        if how == "raises":
            raise ValueError("no such thing")
        os.kill(os.getpid(), signal.SIGKILL)
    group.all_gather(torch.zeros(1, 1), group.size)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", "a training worker failed: ValueError: no such thing"),
        ("killed", "a training worker was killed by signal 9"),
    ],
)
def test_a_lost_worker_ends_the_run_at_once(how: str, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        launch(_fails, 2, how)
    assert caught.value.problem == said
    assert caught.value.fix == (
        "run the same command again: it goes on from the last finished epoch"
    )
    assert time.monotonic() - began < 60


def _late(group: ProcessGroup) -> float:
    import os

    import torch

    group.all_gather(torch.zeros(1, 1), group.size)
    if group.rank == 1:
        group.all_gather(torch.ones(1, 1), group.size)
        os._exit(0)
    look = group._misses_others

    def slow() -> bool:
        """Look when the other has not come, and say so when it has ended."""
        group._misses_others = look  # type: ignore[method-assign]
        time.sleep(1)
        return True

    group._misses_others = slow  # type: ignore[method-assign]
    return float(group.all_gather(torch.zeros(1, 1), group.size).sum())


def test_a_worker_that_came_and_ended_is_not_lost() -> None:
    assert launch(_late, 2) == 1.0


class _Unreadable:
    """Cannot be made again in another process."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _explode, ()


def _explode() -> None:
    raise SystemExit(3)


def test_a_worker_that_does_not_start_is_not_waited_for() -> None:
    with pytest.raises(WorkerError, match="a training worker ended with code"):
        launch(_all_gather, 2, _Unreadable())
