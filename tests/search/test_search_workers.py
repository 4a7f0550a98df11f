"""Local workers: results come whatever dies on the way, and nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from worker_memory import built

from weighin.errors import DataError, WorkerError
from weighin.search.workers import PRELOAD, RETRIES, LocalWorkers

pytestmark = pytest.mark.serial


def square(task: int) -> int:
    return task * task


def die_once(folder: Path, task: int) -> int:
    """Be killed in the middle of each task, the first time."""
    mark = folder / str(task)
    if task % 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task * task


def die(task: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def complain(task: int) -> int:
    raise DataError(f"picture {task} is gone", "bring it back")


def test_results_carry_the_places_of_their_tasks() -> None:
    with LocalWorkers(2) as pool:
        assert sorted(pool.run(square, [5, 3, 4])) == [(0, 25), (1, 9), (2, 16)]
        assert list(pool.run(square, [6])) == [(0, 36)]  # the pool serves again
        assert list(pool.run(square, [])) == []


def test_killed_workers_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalWorkers(2) as pool:
        found = sorted(pool.run(partial(die_once, tmp_path), [1, 2, 3]))
    assert found == [(0, 1), (1, 4), (2, 9)]
    assert capsys.readouterr().err == "a worker went away: its evaluation is run again\n" * 2


def test_workers_that_always_die_are_an_error() -> None:
    with LocalWorkers(1) as pool, pytest.raises(WorkerError) as caught:
        list(pool.run(die, [1]))
    assert str(caught.value) == (
        f"the workers of one evaluation went away {RETRIES + 1} times (killed, or no memory)\n"
        "  to fix: lower `workers` or `recipe.shard_size`, then run the same command again: "
        "finished evaluations are kept"
    )


def test_an_error_of_a_task_arrives_as_it_is() -> None:
    with LocalWorkers(2) as pool, pytest.raises(DataError, match="picture 7 is gone"):
        list(pool.run(complain, [7]))


def imported(task: int) -> tuple[int, int, bool]:
    return os.getpid(), os.getppid(), PRELOAD[0] in sys.modules


def test_workers_share_what_one_process_has_imported() -> None:
    with LocalWorkers(2) as pool:
        found = [result for _, result in pool.run(imported, [1, 2])]
    assert len({pid for pid, _, _ in found}) == 2
    assert len({parent for _, parent, _ in found} - {os.getpid()}) == 1
    assert all(there for _, _, there in found)


def test_a_worker_shares_all_that_building_a_network_needs() -> None:
    with LocalWorkers(1) as pool:
        [(_, (before, after))] = list(pool.run(built, [0]))
    assert before < 40e6
    assert after < 60e6  # 98 where a collection writes to what is shared, 160 without LATE


ORPHANING = """
import os, signal, time
from weighin.search.workers import LocalWorkers
from tests_of_workers import report

if __name__ == "__main__":
    with LocalWorkers(2) as pool:
        list(pool.run(report, [1, 2]))
"""
REPORT = """
import os, time
from pathlib import Path

def report(task):
    Path(str(task)).write_text(str(os.getpid()))
    time.sleep(300)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_leave_with_the_search(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "main.py").write_text(ORPHANING)
    (tmp_path / "tests_of_workers.py").write_text(REPORT)
    search = subprocess.Popen([sys.executable, "main.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    marks = [tmp_path / "1", tmp_path / "2"]
    until(lambda: all(mark.exists() and mark.read_text() for mark in marks))
    search.send_signal(how)
    search.wait(60)
    until(lambda: not any(Path(f"/proc/{mark.read_text()}").exists() for mark in marks))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
