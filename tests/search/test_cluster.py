"""A real Dask scheduler and real workers: the same study, also after one of them is killed."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import Client

from weighin.determinism import PINS
from weighin.errors import WorkerError
from weighin.params import Params
from weighin.search import runner
from weighin.search.evaluation import EvaluationCache, Outcome, Task
from weighin.search.stages import search
from weighin.search.workers import (
    ClusterWorkers,
    _security,
    make_certificates,
    scheduler_command,
    worker_command,
)


class Cluster:
    """A scheduler and its workers, as `weighin scheduler` and `weighin worker` start them."""

    def __init__(
        self, folder: Path, environment: dict[str, str] = PINS, scheme: str = "tcp"
    ) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
        self.scheduler = self._start("scheduler", scheduler_command(self.address), environment)
        self.workers: list[subprocess.Popen[bytes]] = []

    def add(self, count: int, pins: dict[str, str] = PINS) -> None:
        command = [*worker_command(self.address, 1), "--no-nanny"]  # whose death is the worker's
        for _ in range(count):
            self.workers.append(self._start("worker", command, pins))
        with connect(self.address) as client:
            client.wait_for_workers(len(self.workers), timeout=60)

    def _start(
        self, name: str, command: list[str], pins: dict[str, str]
    ) -> "subprocess.Popen[bytes]":
        environment = {k: v for k, v in os.environ.items() if k not in PINS}
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env={**environment, **pins}, stdout=log, stderr=log
            )

    def stop(self) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()


def connect(address: str) -> Client:
    security = _security() if address.startswith("tls") else None
    return Client(address, security=security, set_as_default=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.stop()


def study(packed: Path, folder: Path, params: Params, address: str | None) -> dict[str, bytes]:
    knobs = replace(params.search, trials=6, generation=6, epochs=2, cluster=address, workers=2)
    search(packed, folder / "out", replace(params, search=knobs), folder / "scratch")
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


@pytest.mark.cluster
def test_a_cluster_makes_the_study_of_one_machine(
    packed: Path, params: Params, tmp_path: Path, cluster: Cluster
) -> None:
    cluster.add(2)
    here = study(packed, tmp_path / "here", params, None)
    assert study(packed, tmp_path / "there", params, cluster.address) == here


@pytest.mark.cluster
def test_a_worker_that_is_killed_in_the_middle_of_a_trial_changes_nothing(
    packed: Path,
    params: Params,
    tmp_path: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster.add(2)
    killed: list[int] = []

    class Killing(EvaluationCache):
        """When the first evaluation is kept, kill a worker that is busy with another."""

        def add(self, task: Task, outcome: Outcome) -> None:
            super().add(task, outcome)
            if not killed:
                killed.append(kill_a_busy_worker(cluster.address))

    monkeypatch.setattr(runner, "EvaluationCache", Killing)
    there = study(packed, tmp_path / "there", params, cluster.address)
    assert killed and sum(worker.poll() == -signal.SIGKILL for worker in cluster.workers) == 1
    monkeypatch.setattr(runner, "EvaluationCache", EvaluationCache)
    assert there == study(packed, tmp_path / "here", params, None)


def kill_a_busy_worker(address: str) -> int:
    with connect(address) as client:
        pids = client.run(os.getpid)
        while not (busy := [worker for worker, tasks in client.processing().items() if tasks]):
            time.sleep(0.01)
    os.kill(pids[busy[0]], signal.SIGKILL)
    return int(pids[busy[0]])


def test_a_cluster_with_certificates_serves_who_has_them(
    packed: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ours", "theirs"):
        make_certificates(tmp_path / name)
    monkeypatch.setenv("WEIGHIN_CERTIFICATES", str(tmp_path / "ours"))
    cluster = Cluster(tmp_path, scheme="tls")
    try:
        cluster.add(1)
        here = study(packed, tmp_path / "here", params, None)
        assert study(packed, tmp_path / "there", params, cluster.address) == here
        monkeypatch.setattr("weighin.search.workers.CONNECT", 2)
        monkeypatch.setenv("WEIGHIN_CERTIFICATES", str(tmp_path / "theirs"))
        with pytest.raises(WorkerError, match=r"no Dask scheduler answers at tls://127\.0\.0\.1"):
            ClusterWorkers(cluster.address)
        plain = cluster.address.replace("tls", "tcp")
        with pytest.raises(WorkerError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1"):
            ClusterWorkers(plain)
    finally:
        cluster.stop()


def test_a_cluster_of_this_machine_listens_on_loopback_alone(cluster: Cluster) -> None:
    cluster.add(1)
    processes = [psutil.Process(p.pid) for p in (cluster.scheduler, *cluster.workers)]
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_an_unpinned_worker_is_refused(
    packed: Path, params: Params, tmp_path: Path, cluster: Cluster
) -> None:
    cluster.add(1, pins={})
    with pytest.raises(WorkerError) as caught:
        study(packed, tmp_path / "out", params, cluster.address)
    assert str(caught.value) == (
        "a worker runs without the pins of weighin.determinism\n"
        "  to fix: start it by `weighin worker`, or as docker/cluster.yaml does"
    )


def test_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighin.search.workers.CONNECT", 0.5)
    with pytest.raises(WorkerError) as caught:
        ClusterWorkers("tcp://127.0.0.1:9")
    assert caught.value.problem.startswith("no Dask scheduler answers at tcp://127.0.0.1:9 (")
    assert caught.value.fix == (
        "start one by `weighin scheduler`, or set the stage's cluster to null"
    )


def test_a_scheduler_without_this_package(tmp_path: Path) -> None:
    (tmp_path / "weighin.py").write_text("raise ImportError('not here')")
    elsewhere = Cluster(tmp_path, {**PINS, "PYTHONPATH": str(tmp_path)})
    try:
        with pytest.raises(WorkerError) as caught:
            ClusterWorkers(elsewhere.address)
    finally:
        elsewhere.stop()
    assert str(caught.value) == (
        f"the Dask scheduler at {elsewhere.address} does not find weighin (not here)\n"
        "  to fix: start it by `weighin scheduler`, in the project's folder"
    )


def test_patience_begins_when_a_worker_was_last_seen(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that finishes tasks is seen, however long it is since anybody looked for one."""
    monkeypatch.setattr("weighin.search.workers.LOOK", 0.2)
    cluster.add(1)
    with ClusterWorkers(cluster.address) as pool:
        pool._seen -= 1000  # a long search in which something finished all the time
        evaluations = pool.run(time.sleep, [0.1, 60.0])
        assert next(evaluations) == (0, None)
        monkeypatch.setattr("weighin.search.workers.PATIENCE", 5)
        cluster.workers[0].kill()
        start = time.monotonic()
        with pytest.raises(WorkerError, match=r"has had no worker for [56] s"):
            next(evaluations)
        assert time.monotonic() - start > 5


def test_no_worker_for_too_long(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighin.search.workers.LOOK", 0.1)
    monkeypatch.setattr("weighin.search.workers.PATIENCE", 0.5)
    with (
        ClusterWorkers(cluster.address) as pool,
        pytest.raises(WorkerError) as caught,
    ):
        list(pool.run(abs, [-1]))
    assert caught.value.problem.startswith(
        f"the cluster at {cluster.address} has had no worker for "
    )


def test_a_scheduler_that_goes_away(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weighin.search.workers.LOOK", 0.1)
    with ClusterWorkers(cluster.address) as pool:
        evaluations = pool.run(abs, [-1])
        later(1.0, cluster.scheduler.kill)
        with pytest.raises(WorkerError) as caught:
            list(evaluations)
    assert str(caught.value) == (
        f"the Dask scheduler at {cluster.address} went away\n"
        "  to fix: start it again, then run the same command again: finished evaluations "
        "are kept"
    )


def later(seconds: float, action: Callable[[], None]) -> None:
    threading.Timer(seconds, action).start()
