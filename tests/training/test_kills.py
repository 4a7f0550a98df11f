"""SIGKILL at seeded random moments, of the first process or of a worker: the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, digest
from weighin.determinism import generator
from weighin.training.weights import load_state, unpack_state

pytestmark = pytest.mark.serial
EPOCHS = 40
Command = Callable[..., list[str]]


def run_and_kill(line: list[str], moment: float, victim: str) -> bool:
    """Start a run; kill it, or a worker of it, some time after its first epoch.

    Return whether it was still at work. `moment` is a share of the run.
    """
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        lines = 0
        while lines < moment * EPOCHS and process.stderr.readline():
            lines += 1
        time.sleep(moment % 0.02)  # anywhere inside the epoch, or inside the write of its state
        target = process.pid if victim == "first" else last_child(process.pid)
        if target:
            os.kill(target, signal.SIGKILL)
        process.stderr.read()
    return process.returncode != 0


def last_child(pid: int) -> int:
    """Return the youngest process below `pid`, which is a worker, or 0."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    below = [child for child in parents if pid in _ancestors(child, parents)]
    return max(below, default=0)


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found = set()
    while pid in parents:
        pid = parents[pid]
        found.add(pid)
    return found


def check(command: Command, run: Run, tmp_path: Path, kills: int) -> None:
    whole = digest(run(epochs=EPOCHS, scratch="whole"))
    random, hits, chain = generator("kills"), 0, 0
    for number in range(kills):
        workers, victim = [(1, "first"), (2, "first"), (2, "worker")][number % 3]
        line = command(epochs=EPOCHS, workers=workers, scratch=f"chain{chain}")
        if run_and_kill(line, float(random.random()) / 2, victim):
            hits += 1
        else:
            chain += 1  # it had ended: the next one starts anew
    assert hits >= kills // 2
    for each in range(chain + 1):
        assert digest(run(epochs=EPOCHS, scratch=f"chain{each}")) == whole
        assert [p.name for p in (tmp_path / f"chain{each}").iterdir()] == ["train.state"]


def test_three_kills(command: Command, run: Run, tmp_path: Path) -> None:
    check(command, run, tmp_path, 3)


@pytest.mark.kills
@pytest.mark.repeats
@pytest.mark.timeout(3600)
def test_twenty_five_kills(command: Command, run: Run, tmp_path: Path) -> None:
    check(command, run, tmp_path, 25)


@pytest.mark.kills
def test_a_lost_rank_of_torchrun_leaves_a_state_to_go_on_from(
    command: Command, run: Run, tmp_path: Path
) -> None:
    whole = digest(run(epochs=EPOCHS, scratch="whole"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    assert run_and_kill(command(launcher, epochs=EPOCHS, scratch="torchrun"), 0.4, "worker")
    state = unpack_state(load_state(tmp_path / "torchrun" / "train.state"))
    assert state is not None
    assert 1 <= state.epoch < EPOCHS
    assert digest(run(epochs=EPOCHS, scratch="torchrun")) == whole


def test_no_worker_outlives_the_first_process(command: Command) -> None:
    line = command(epochs=10_000, workers=2)
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        process.stderr.readline()
        worker = last_child(process.pid)
        assert worker
        process.kill()
    limit = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
