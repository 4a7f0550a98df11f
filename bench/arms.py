"""The arms of `bench.search`: each a process that finds networks for the same CPU time."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.waste7 import ROOT, packed

if TYPE_CHECKING:
    from weighin.params import Params
    from weighin.search.study import Study, Trial
    from weighin.search.workers import Workers

CPU_SECONDS = 150.0
MAX_MACS = 2_000_000
EPOCHS = 8
AUGMENT = 0.25  # of the recipe's, in a trial of our search
CLASSES = 7
Point = dict[str, float]  # macs, f1, score


def mean_f1(points: Sequence[Point]) -> float:
    """Return the hypervolume a MAC: the mean up to the gate of the best F1 of as many MACs."""
    from weighin.grading.score import Metrics
    from weighin.search.study import hypervolume

    found = [Metrics(point["f1"], 0.0, int(point["macs"]), 0) for point in points]
    return hypervolume(found, MAX_MACS) / MAX_MACS


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
    params = parameters(int(seed))
    return generations(replace(params, search=replace(params.search, augment=AUGMENT)), Path(pack))


def chance(seed: str, pack: str) -> list[Point]:
    """Return what random search finds: our search without its sampler and its halving."""
    params = parameters(int(seed))
    search = replace(params.search, sampler="random", halving=1, augment=AUGMENT)
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
    from weighin.network.cost import cost
    from weighin.search.runner import TrialRunner
    from weighin.search.space import read_space
    from weighin.search.stages import planned, proposer
    from weighin.search.study import Study

    plan, contest = planned(params), params.contest
    space = read_space(params.search.space, packed_sizes(pack))
    propose = proposer(space, params.recipe, lambda spec: cost(spec, CLASSES))
    return Study(plan, contest, propose, TrialRunner(plan, contest, pack, workers, scratch))


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
    from weighin.network.cost import cost
    from weighin.search.evaluation import Task, evaluate
    from weighin.search.runner import shortened
    from weighin.search.space import read_space
    from weighin.search.stages import proposer
    from weighin.search.study import Trial
    from weighin.training.trainer import Job

    params = parameters(int(seed))
    recipe = shortened(params.recipe, params.search.shards)
    propose = proposer(
        read_space("seed", packed_sizes(Path(pack))), recipe, lambda spec: cost(spec, CLASSES)
    )
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


def parameters(seed: int) -> "Params":
    """Return the waste7 parameters for the front of short trainings."""
    from weighin.params import load

    params = load(ROOT / "results/waste7/params.yaml")
    search = replace(params.search, objective="front", epochs=EPOCHS, trials=100_000, cluster=None)
    contest = replace(params.contest, max_macs=MAX_MACS)
    return replace(params, seed=seed, search=search, contest=contest)


def packed_in_halves(folder: Path, sizes: Sequence[tuple[int, int]] = ()) -> Path:
    """Return the photographs, packed at some sizes; without any, at those of waste7."""
    prepare = parameters(1).prepare
    sizes = tuple(sizes) or prepare.sizes
    # half of them validate, so that a front is less of luck and a trial takes less time
    return packed(folder, replace(prepare, sizes=sizes, group="none", validation=0.5))


ARMS: dict[str, Callable[[str, str], list[Point]]] = {f.__name__: f for f in (ours, chance, plain)}
