"""How good a front the search finds for its CPU time: `python -m bench.search`.

    search.vs_random        hypervolume of the front of our search (space `small`, generations with
                            successive halving) over that of random search in the same space, which
                            trains every network to the end
    search.vs_plain_optuna  the same over the plain loop: `study.optimize` with Optuna's default
                            sampler in the first team's space, every network trained to the end
    search.two_workers      trials an hour of two workers over those of one: a generation of 16 of
                            up to 12 epochs, once every process has started, the fastest of three
                            runs each
    search.overhead         share of the one worker's search that is not training: proposing,
                            counting MACs, sending and keeping what is found

Every arm is one process that has CPU_SECONDS, on the photographs of WEIGHIN_DATA/waste7/train with
the recipe of results/waste7/params.yaml; trials of our search and of random search have a quarter
of its augmentation. What is over the gate of MAX_MACS costs it no training. Only networks trained
for all EPOCHS count, with their F1 on the validation split.

The hypervolume is the mean, over every number of MACs from 0 to the gate, of the best F1 that is
had for it: reference point F1 0 at the gate, both axes linear as in the contest's score. The gate
of 2 M lets in the first team's own network, of 1,862,490.

bench/search_fronts.json gets every front.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.arms import ARMS, made, mean_f1, packed_in_halves, parameters
from bench.figures import Figures, figure, is_quick, told, without
from bench.waste7 import ROOT, TRAIN
from weighin.determinism import pin
from weighin.parallel import cores

COMMAND = "python -m bench.search"
FRONTS = ROOT / "bench/search_fronts.json"
SEEDS = (4, 5, 6)  # 1 to 3 chose the settings
SIZES = ((38, 52), (46, 64), (54, 76))  # of the first team's network too
TRIALS, LONG = 16, 12  # of a timed search: one generation, epochs
TIMES = 3


def figures(quick: bool = False) -> Figures:
    """Return this part's figures."""
    if not TRAIN.is_dir():
        return without(TRAIN)
    seeds = SEEDS[:1] if quick else SEEDS
    with tempfile.TemporaryDirectory() as name:
        pack = packed_in_halves(Path(name), SIZES)
        volumes = compared(pack, seeds)
        one, two = zip(*((timed(pack, 1), timed(pack, 2)) for _ in range(TIMES)), strict=True)
    over_random = [ours / chance for ours, chance, _ in volumes]
    over_plain = [ours / plain for ours, _, plain in volumes]
    # a neighbour can only slow a run down: the fastest of some runs are compared
    faster = min(run["seconds"] for run in one) / min(run["seconds"] for run in two)
    outside = [1 - run["training"] / run["seconds"] for run in one]
    return {
        "search.vs_random": figure(over_random, "ratio", "above 1.05", COMMAND),
        "search.vs_plain_optuna": figure(over_plain, "ratio", "at least 2.5", COMMAND),
        "search.two_workers": figure([faster], "ratio", "at least 1.85", COMMAND),
        "search.overhead": figure(outside, "share", "under 0.02", COMMAND),
    }


def compared(pack: Path, seeds: Sequence[int]) -> list[list[float]]:
    """Return each seed's hypervolumes in the order of ARMS; write every front."""
    from weighin.files import write_json

    runs = [(seed, arm) for seed in seeds for arm in ARMS]
    rows = []
    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(lambda run: measured(run[1], run[0], pack), runs)
        for (seed, arm), points in zip(runs, found, strict=True):
            volume = round(mean_f1(points), 4)
            best = min((point["score"] for point in points), default=float("nan"))
            print(
                f"seed {seed} {arm:<7} {len(points):>3} networks, "
                f"hypervolume {volume:.4f}, best score {best:.4f}",
                flush=True,
            )
            rows.append({"seed": seed, "arm": arm, "hypervolume": volume, "points": points})
    write_json(FRONTS, rows)
    volumes: list[float] = [row["hypervolume"] for row in rows]
    return [volumes[start : start + len(ARMS)] for start in range(0, len(rows), len(ARMS))]


def measured(what: str, *arguments: Any) -> Any:
    """Return what a process of its own finds."""
    line = [sys.executable, "-m", "bench.search", "--measure", what, *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def timed(pack: Path, workers: int) -> dict[str, float]:
    """Return the seconds of a search by so many workers, and those of its training."""
    found: dict[str, float] = measured("speed", workers, pack)
    return found


def speed(workers: str, pack: str) -> dict[str, float]:
    """Return the seconds of a search by so many workers, and those of its training."""
    from weighin.search.workers import LocalWorkers

    spent: list[float] = []

    class Timed(LocalWorkers):
        def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
            for place, (seconds, result) in super().run(partial(clocked, function), tasks):
                spent.append(seconds)
                yield place, result

    params = parameters(1)
    knobs = replace(params.search, trials=TRIALS, generation=TRIALS, epochs=LONG, halving=2)
    with tempfile.TemporaryDirectory() as scratch, Timed(int(workers)) as pool:
        study = made(replace(params, search=knobs), Path(pack), pool, Path(scratch))
        list(pool.run(ready, range(int(workers))))
        ready(0)
        spent.clear()
        began = time.perf_counter()
        study.run()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "training": sum(spent)}


def ready(_: int) -> None:
    """Import what is needed to train, and to count MACs: two seconds, once a process."""
    importlib.import_module("weighin.training.trainer")
    importlib.import_module("torch._dynamo")  # torch needs it for tensors without values


def clocked(function: Callable[[Any], Any], task: Any) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    began = time.perf_counter()
    result = function(task)
    return time.perf_counter() - began, result


MEASURES: dict[str, Callable[..., Any]] = {**ARMS, "speed": speed}

if __name__ == "__main__":
    pin()
    if "--measure" in sys.argv:
        print(json.dumps(MEASURES[sys.argv[2]](*sys.argv[3:])))
    else:
        print(told(figures(is_quick())))
