"""How good a front the search finds for its CPU time: `python -m bench.search`.

    search.vs_random        hypervolume of the front of our search (space `small`, generations with
                            successive halving) over that of random search in the same space, which
                            trains every network to the end
    search.vs_plain_optuna  the same over the plain loop: `study.optimize` with Optuna's default
                            sampler in the first team's space, every network trained to the end
    search.two_workers      trials an hour of two workers over those of one: a generation of 16 of
                            up to 8 epochs, once the workers have started
    search.overhead         share of the one worker's search that is not training: proposing,
                            counting MACs, sending and keeping what is found

Every arm is one process that has CPU_SECONDS, on the photographs of WEIGHIN_DATA/waste7/train with
the recipe and sizes of results/waste7/params.yaml; what is over the gate of MAX_MACS costs it no
training. Only networks trained for all EPOCHS count, with their F1 on the validation split. Ours
stops the lower half of a generation after half of them: at a quarter, of so few, F1 says nothing.

The hypervolume is the mean, over every number of MACs from 0 to the gate, of the best F1 that is
had for it: reference point F1 0 at the gate, both axes linear as in the contest's score. The gate
of 2 M lets in the first team's own network, of 1,862,490.

bench/search_fronts.json gets every front.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import figure
from weighin.determinism import pin

if TYPE_CHECKING:
    from weighin.params import Params
    from weighin.search.generations import Study, Trial
    from weighin.search.workers import Workers

ROOT = Path(__file__).parents[1]
COMMAND = "python -m bench.search"
PHOTOGRAPHS = Path(os.environ.get("WEIGHIN_DATA", "data")) / "waste7" / "train"
FRONTS = ROOT / "bench/search_fronts.json"
CPU_SECONDS = 150.0
MAX_MACS = 2_000_000
EPOCHS = 8
CLASSES = 7
TRIALS = 16  # of a timed search: one generation
Point = dict[str, float]  # macs, f1, score


def figures(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Return this room's figures."""
    if not PHOTOGRAPHS.is_dir():
        sys.exit(f"{PHOTOGRAPHS} does not exist; name a folder that holds waste7 in WEIGHIN_DATA")
    seeds = (1,) if quick else (1, 2, 3)
    with tempfile.TemporaryDirectory() as name:
        pack = packed(Path(name))
        volumes = compared(pack, seeds)
        one, two = zip(*((timed(pack, 1), timed(pack, 2)) for _ in seeds), strict=True)
    over_random = [ours / chance for ours, chance, _ in volumes]
    over_plain = [ours / plain for ours, _, plain in volumes]
    faster = [a["seconds"] / b["seconds"] for a, b in zip(one, two, strict=True)]
    outside = [1 - run["training"] / run["seconds"] for run in one]
    return {
        "search.vs_random": figure(over_random, "ratio", "above 1.05", COMMAND),
        "search.vs_plain_optuna": figure(over_plain, "ratio", "above 1.3", COMMAND),
        "search.two_workers": figure(faster, "ratio", "at least 1.85", COMMAND),
        "search.overhead": figure(outside, "share", "under 0.02", COMMAND),
    }


def compared(pack: Path, seeds: Sequence[int]) -> list[list[float]]:
    """Return each seed's hypervolumes in the order of ARMS; write every front."""
    from weighin.files import write_json

    runs = [(seed, arm) for seed in seeds for arm in ARMS]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(lambda run: measured(run[1], run[0], pack), runs))
    rows = [
        {"seed": seed, "arm": arm, "hypervolume": round(hypervolume(points), 4), "points": points}
        for (seed, arm), points in zip(runs, found, strict=True)
    ]
    for row in rows:
        best = min((point["score"] for point in row["points"]), default=float("nan"))
        print(
            f"seed {row['seed']} {row['arm']:<7} {len(row['points']):>3} networks, "
            f"hypervolume {row['hypervolume']:.4f}, best score {best:.4f}"
        )
    write_json(FRONTS, rows)
    volumes = [row["hypervolume"] for row in rows]
    return [volumes[start : start + len(ARMS)] for start in range(0, len(rows), len(ARMS))]


def hypervolume(points: Sequence[Point]) -> float:
    """Return the mean over MACs from 0 to the gate of the best F1 of networks with as many."""
    best = before = total = 0.0
    for point in sorted(points, key=lambda point: point["macs"]):
        total += best * (point["macs"] - before)
        best, before = max(best, point["f1"]), point["macs"]
    return (total + best * (MAX_MACS - before)) / MAX_MACS


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


class SpentError(Exception):
    """The CPU time is spent; what was being trained does not count."""


class Meter:
    """Trains here, one after the other, until the CPU time of this process is spent."""

    def __init__(self) -> None:
        self.end = time.process_time() + CPU_SECONDS

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        """Yield (place of a task, its result).

        Raises:
            SpentError: a task was not ready in time.
        """
        for place, task in enumerate(tasks):
            result = function(task)
            if time.process_time() > self.end:
                raise SpentError
            yield place, result


def ours(seed: str, pack: str) -> list[Point]:
    """Return what our search finds."""
    return generations(parameters(int(seed)), Path(pack))


def chance(seed: str, pack: str) -> list[Point]:
    """Return what random search finds: our search without its sampler and its halving."""
    params = parameters(int(seed))
    search = replace(params.search, sampler="random", halving=1)
    return generations(replace(params, search=search), Path(pack))


def generations(params: "Params", pack: Path) -> list[Point]:
    """Return the networks that a study of any length trains to the end in time."""
    meter: Any = Meter()
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(SpentError):
        study = made(params, pack, meter, Path(scratch))
        study.run()
    return [point(trial, params.contest) for trial in study.trials if finished(trial)]


def made(params: "Params", pack: Path, workers: "Workers", scratch: Path) -> "Study":
    """Return the study that the search stage would run."""
    from weighin.data.pack import packed_sizes
    from weighin.search.architecture import planned, proposer
    from weighin.search.generations import Study
    from weighin.search.space import read_space
    from weighin.search.trainer import Trainer

    plan, contest = planned(params), params.contest
    space = read_space(params.search.space, packed_sizes(pack))
    propose = proposer(space, params.recipe, CLASSES)
    return Study(plan, contest, propose, Trainer(plan, contest, pack, workers, scratch))


def finished(trial: "Trial") -> bool:
    """Whether a trial was trained to the end."""
    return trial.measured is not None and trial.measured.epochs == EPOCHS


def point(trial: "Trial", contest: Any) -> Point:
    """Return what a trial found."""
    from weighin.grading.score import score

    metrics = trial.metrics()
    value = round(score(contest, metrics).value, 6)
    return {"macs": metrics.macs, "f1": metrics.f1, "score": value}


def plain(seed: str, pack: str) -> list[Point]:
    """Return what the plain loop finds in the first team's space."""
    import optuna

    from weighin.data.pack import packed_sizes
    from weighin.search.architecture import proposer
    from weighin.search.evaluation import Task, evaluate
    from weighin.search.generations import Trial
    from weighin.search.space import read_space
    from weighin.search.trainer import shortened
    from weighin.training.job import Job

    params = parameters(int(seed))
    recipe = shortened(params.recipe, params.search.shards)
    propose = proposer(read_space("seed", packed_sizes(Path(pack))), recipe, CLASSES)
    meter, found = Meter(), []

    def objective(asked: optuna.trial.Trial) -> tuple[float, float]:
        proposal = propose(asked)
        if proposal is None or proposal.cost.macs > MAX_MACS:
            raise optuna.TrialPruned
        address = (int(seed), "plain", asked.number)
        job = Job(proposal.spec, recipe, EPOCHS, Path(pack), address, validations=0)
        _, outcome = next(meter.run(evaluate, [Task(asked.number, job, EPOCHS)]))
        trial = Trial(asked.number, proposal, measured=outcome.measured)
        found.append(point(trial, params.contest))
        return trial.metrics().f1, trial.proposal.cost.macs

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(seed=int(seed))  # the default of two objectives
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    with contextlib.suppress(SpentError):
        study.optimize(objective)
    return found


def speed(workers: str, pack: str) -> dict[str, float]:
    """Return the seconds of a search by so many workers, and those of its training."""
    from weighin.search.local import LocalWorkers

    spent: list[float] = []

    class Timed(LocalWorkers):
        def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
            for place, (seconds, result) in super().run(partial(clocked, function), tasks):
                spent.append(seconds)
                yield place, result

    params = parameters(1)
    knobs = replace(params.search, trials=TRIALS, generation=TRIALS)
    with tempfile.TemporaryDirectory() as scratch, Timed(int(workers)) as pool:
        list(pool.run(ready, range(int(workers))))
        spent.clear()
        began = time.perf_counter()
        made(replace(params, search=knobs), Path(pack), pool, Path(scratch)).run()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "training": sum(spent)}


def ready(_: int) -> None:
    """Import what a worker needs to train."""
    importlib.import_module("weighin.training.loop")


def clocked(function: Callable[[Any], Any], task: Any) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    began = time.perf_counter()
    result = function(task)
    return time.perf_counter() - began, result


def parameters(seed: int) -> "Params":
    """Return the waste7 parameters for the front of short trainings."""
    from weighin.params import load

    params = load(ROOT / "results/waste7/params.yaml")
    search = replace(
        params.search, objective="front", epochs=EPOCHS, halving=2, trials=100_000, cluster=None
    )
    contest = replace(params.contest, max_macs=MAX_MACS)
    recipe = replace(params.recipe, shards=2, shard_size=32)  # the same batch, a third faster
    return replace(params, seed=seed, search=search, contest=contest, recipe=recipe)


def packed(folder: Path) -> Path:
    """Return the packed photographs."""
    from weighin.data.prepare import prepare

    # half of them validate, so that a front is less of luck and a trial takes less time
    chosen = replace(parameters(1).prepare, group="none", validation=0.5)
    (folder / "train").symlink_to(PHOTOGRAPHS.absolute())
    prepare(folder, folder / "pack", chosen, 1, len(os.sched_getaffinity(0)))
    return folder / "pack"


ARMS = ("ours", "chance", "plain")
MEASURES: dict[str, Callable[..., Any]] = {f.__name__: f for f in (ours, chance, plain, speed)}

if __name__ == "__main__":
    pin()
    if "--measure" in sys.argv:
        print(json.dumps(MEASURES[sys.argv[2]](*sys.argv[3:])))
    else:
        print(json.dumps(figures("--quick" in sys.argv), indent=2))
