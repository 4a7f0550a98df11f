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
from weighin.files import sha256_file
from weighin.training import checkpoint
from weighin.training.complete import complete
from weighin.training.job import Job
from weighin.training.loop import fit
from weighin.training.team import Team, work
from weighin.training.weights import write_weights

pytestmark = pytest.mark.serial
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]


def trained(packed: Path, folder: Path, workers: int = 1, seed: int = 1) -> str:
    """Return the digest of the small job's weights."""
    complete_job = make_job(packed, address=(seed, "t"))
    fitted = complete("train", complete_job, workers, folder)
    write_weights(folder / "weights", fitted.weights)
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
        complete("train", job, workers, tmp_path / f"{workers}").weights for workers in (1, 8)
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
    half = work(_half, 2, job)
    checkpoint.save(tmp_path / "train.state", half)
    assert trained(packed, tmp_path, workers=3) == alone


def _half(team: Team, job: Job) -> bytes:
    return fit(team, job, until=2).state


def test_pieces_are_shared_in_order() -> None:
    assert [list(Team(rank, 3).mine(7)) for rank in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [list(Team(rank, 4).mine(5)) for rank in range(4)] == [[0, 1], [2, 3], [4], []]


def _gather(team: Team, pieces: int) -> list[float]:
    import torch

    rows = torch.tensor([[float(piece), 0.5] for piece in team.mine(pieces)]).reshape(-1, 2)
    return team.gather(rows, pieces)[:, 0].tolist()


def test_gather_returns_every_piece_in_order() -> None:
    assert work(_gather, 3, 7) == [0, 1, 2, 3, 4, 5, 6]


def test_more_workers_than_pieces() -> None:
    assert work(_gather, 3, 2) == [0, 1]


def _share(team: Team, data: bytes) -> bytes:
    other = team.share(data if team.rank == 0 else b"not this")
    assert other == data
    return other


@pytest.mark.parametrize("data", [b"", b"\0one\xff"])
def test_share_gives_the_first_workers_bytes(data: bytes) -> None:
    assert work(_share, 2, data) == data


def _fails(team: Team, how: str) -> None:
    import os
    import signal

    import torch

    if team.rank == 1:
        if how == "raises":
            raise ValueError("no such thing")
        os.kill(os.getpid(), signal.SIGKILL)
    team.gather(torch.zeros(1, 1), team.size)


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
        work(_fails, 2, how)
    assert caught.value.problem == said
    assert caught.value.fix == (
        "run the same command again: it goes on from the last finished epoch"
    )
    assert time.monotonic() - began < 60


class _Unreadable:
    """Cannot be made again in another process."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _explode, ()


def _explode() -> None:
    raise SystemExit(3)


def test_a_worker_that_does_not_start_is_not_waited_for() -> None:
    with pytest.raises(WorkerError, match="a training worker ended with code"):
        work(_gather, 2, _Unreadable())
