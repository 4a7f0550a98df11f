"""What the workers of a search cost: `python -m bench.workers`.

    workers.start_8_s    seconds until eight new local workers have each answered, the process that
                         they are forked from being started first
    workers.memory_mb    memory of a worker after trials of TRIAL seconds, beyond what it shares
                         with that process: torch, and all else that is imported
    workers.overhead     share of the time of such trials that one worker does not spend in them
    workers.cluster_ms   CPU milliseconds of the search and of the scheduler for a trial of 64 Dask
                         workers, which train a small network for an epoch: where a trial takes
                         TRIAL seconds, 64 workers need one every 156 ms. The scheduler is a process
                         of its own; the workers are 16 in each of four processes and take turns
                         there, as 64 processes with torch would take 20 GB

Images are drawn (bench.scale).
"""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figures, figure, is_quick, told
from bench.scale import network, prepared
from bench.search import clocked
from weighin.determinism import pin

if TYPE_CHECKING:
    from weighin.search.evaluation import Task

COMMAND = "python -m bench.workers"
IMAGES, TRIAL = 1_000, 10.0
PROCESSES, EACH = 4, 16


def figures(quick: bool = False) -> Figures:
    """Return this room's figures."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="weighin-workers-") as folder:
        os.chdir(folder)
        try:
            start = started()
            params = prepared(IMAGES, 4)
            tasks = partial(made, params.recipe)
            memory, overhead = one_worker(tasks, 2 if quick else 6)
            cluster = cluster_ms(tasks(64 if quick else 256, 1))
        finally:
            os.chdir(home)
    return {
        "workers.start_8_s": figure([start], "s", "at most 20", COMMAND),
        "workers.memory_mb": figure([memory], "MB", "at most 150", COMMAND),
        "workers.overhead": figure([overhead], "share", "at most 0.02", COMMAND),
        "workers.cluster_ms": figure([cluster], "ms", "under 156", COMMAND),
    }


def made(recipe: Any, count: int, epochs: int) -> "list[Task]":
    """Return so many trials of the small network."""
    from weighin.search.evaluation import Task
    from weighin.training.trainer import Job

    pack = Path("work/prepare").absolute()
    spec = network()
    return [
        Task(k, Job(spec, recipe, epochs, pack, (0, "workers", k), validations=0), epochs)
        for k in range(count)
    ]


def started() -> float:
    """Return the seconds until eight workers have answered."""
    from weighin.search.workers import LocalWorkers

    began = time.perf_counter()
    with LocalWorkers(8) as pool:
        list(pool.run(own_mb, range(8)))
        return time.perf_counter() - began


def one_worker(tasks: Any, count: int) -> tuple[float, float]:
    """Return the MB that one local worker holds after some trials, and its share outside them."""
    from weighin.search.evaluation import evaluate
    from weighin.search.workers import LocalWorkers

    work = partial(clocked, evaluate)
    with LocalWorkers(1) as pool:
        list(pool.run(work, tasks(1, 1)))
        [(_, (epochs, _))] = pool.run(work, tasks(1, 10))
        trials = tasks(count, max(1, round(TRIAL / epochs * 10)))
        began = time.perf_counter()
        inside = sum(seconds for _, (seconds, _) in pool.run(work, trials))
        outside = 1 - inside / (time.perf_counter() - began)
        [(_, memory)] = pool.run(own_mb, [0])
    return memory, outside


def own_mb(_: int) -> float:
    """Return the memory that this process shares with no other, in MB."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_\w+: +(\d+)", text, re.MULTILINE))) / 1024


def cluster_ms(tasks: "list[Task]") -> float:
    """Return the CPU ms a trial of this process and of the scheduler."""
    from weighin.search.evaluation import evaluate
    from weighin.search.workers import ClusterWorkers

    with cluster() as (address, scheduler), ClusterWorkers(address) as workers:
        list(workers.run(evaluate, tasks[: PROCESSES * EACH]))  # each imports what it needs
        before = spent(scheduler)
        found = dict(workers.run(evaluate, tasks))
        used = spent(scheduler) - before
    assert found[0] == evaluate(tasks[0])  # and the results are everybody's
    return used / len(tasks) * 1000


def spent(process: int) -> float:
    """Return the CPU seconds of this process and of another."""
    times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + sum(map(int, times[11:13])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def cluster() -> Iterator[tuple[str, int]]:
    """Yield the address and process of a scheduler with its workers."""
    from distributed import Client

    from weighin.search.workers import scheduler_command

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    running: list[subprocess.Popen[bytes]] = []

    def start(command: list[str]) -> None:
        env, none = os.environ | {"PYTHONPATH": path}, subprocess.DEVNULL
        running.append(subprocess.Popen(command, env=env, stdout=none, stderr=none))

    try:
        start(scheduler_command(address))
        with Client(address, timeout=120, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            for _ in range(PROCESSES):
                start([sys.executable, "-m", "bench.workers", "--serve", address])
            client.wait_for_workers(PROCESSES * EACH, timeout=300)
        yield address, running[0].pid
    finally:
        for process in running:
            process.kill()
            process.wait()


async def serve(address: str) -> None:
    """Be some Dask workers that take turns, until this process is killed."""
    from distributed import Worker

    turns = ThreadPoolExecutor(1)
    workers = [Worker(address, nthreads=1, memory_limit=0, executor=turns) for _ in range(EACH)]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    pin()
    if "--serve" in sys.argv:
        asyncio.run(serve(sys.argv[-1]))
    else:
        print(told(figures(is_quick())))
