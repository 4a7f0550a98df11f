"""How many workers a setting means, and what becomes of processes."""

import os
import signal
import sys
import time
from concurrent.futures import process
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from weighin.errors import ParamsError, WorkerError
from weighin.parallel import Pool, worker_count, workers


def test_workers_are_at_most_one_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEIGHIN_WORKERS", raising=False)
    assert worker_count(64, 4) == 4
    assert worker_count(3, 4) == 3
    monkeypatch.setenv("WEIGHIN_WORKERS", "2")
    assert worker_count(64, 4) == 2


@pytest.mark.parametrize("text", ["many", "-1", "", "1.5", "²"])
def test_a_worker_count_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WEIGHIN_WORKERS", text)
    with pytest.raises(ParamsError) as caught:
        worker_count("auto", 4)
    assert caught.value.problem == f"WEIGHIN_WORKERS is {text}; it must be auto or a whole number"


def test_one_worker_is_this_process_and_two_are_others() -> None:
    with workers(1, "it worked") as pool:
        assert pool.submit(os.getpid).result() == os.getpid()
    with workers(2, "it worked") as pool:
        assert pool.submit(os.getpid).result() != os.getpid()


def test_an_error_of_the_work_is_raised_by_either() -> None:
    for count in (1, 2):
        with pytest.raises(ZeroDivisionError), workers(count, "it worked") as pool:
            pool.submit(divmod, 1, 0).result()


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(WorkerError) as caught, workers(2, "it read images") as pool:
        pool.submit(_kill_self).result()
    assert caught.value.problem == "a worker process went away while it read images"
    assert "fewer workers" in caught.value.fix


LOCKED = pytest.mark.skipif(
    sys.version_info < (3, 11, 7), reason="no death is noticed while work is handed out (gh-105829)"
)


@LOCKED
def test_a_worker_that_dies_as_another_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(2) as pool:
        _kill_before(monkeypatch, pool, pool, "_spawn_process")
        pool.submit(time.sleep, 60)  # the idle worker has it
        with pytest.raises(BrokenProcessPool):
            pool.submit(os.getpid)


@LOCKED
def test_a_worker_that_dies_as_work_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would do that work, nor say so."""
    with Pool(2) as pool:
        _kill_before(monkeypatch, pool, process, "_WorkItem")
        with pytest.raises(BrokenProcessPool):
            pool.submit(os.getpid).result(timeout=10)


def _kill_before(monkeypatch: pytest.MonkeyPatch, pool: Any, owner: Any, name: str) -> None:
    """Let a worker of `pool` die, and be seen to, as soon as `owner.name` is called."""
    pid, then = pool.submit(os.getpid).result(), getattr(owner, name)

    def kill(*arguments: Any) -> Any:
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 60
        while not pool._broken:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.3)  # what follows at once: the end of other work, and of pipes
        return then(*arguments)

    monkeypatch.setattr(owner, name, kill)


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
