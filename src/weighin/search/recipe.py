"""The tune stage: the recipe's knobs for one network, by seeded TPE in generations.

Trial 0 is the recipe as it stands in params, so the one that is chosen is never worse on
validation than what there was.
"""

from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import optuna

from weighin.data.pack import validation_groups
from weighin.files import read_json, write_json
from weighin.network.export import contest_cost
from weighin.network.spec import NetworkSpec
from weighin.params import Params, Recipe
from weighin.progress import say
from weighin.search.choice import decide, study_record
from weighin.search.cluster import open_workers
from weighin.search.runner import TrialRunner
from weighin.search.study import Plan, Proposal, Study
from weighin.search.trials import StudyRecord, write_trials
from weighin.training.device import record_device, require_device, worker_setting
from weighin.training.weights import initial_weights
from weighin.validation import parameters, with_values

Range = tuple[float, float]


def tune(packed: Path, spec: NetworkSpec, out: Path, params: Params, kept: Path) -> None:
    """Write the folder `out`: recipe.json, and trials.json where there was a search.

    Trials start from `train.weights`, where there are some.

    Raises:
        NetworkError: `train.weights` do not fit the network.
        MachineError: the recipe's device is not here.
        WorkerError: workers went away too often; finished evaluations are kept.
    """
    (out / "trials.json").unlink(missing_ok=True)
    recipe = params.recipe
    if params.tune.enabled:
        recipe, trials = _tuned(packed, spec, params, kept)
        write_trials(out, trials)
    record_device(out, recipe if params.tune.enabled else None)
    write_json(out / "recipe.json", asdict(recipe))


def _tuned(
    packed: Path, spec: NetworkSpec, params: Params, kept: Path
) -> tuple[Recipe, StudyRecord]:
    tuning, contest = params.tune, params.contest
    require_device(params.recipe)
    space = {name: (low, high) for name, (low, high) in sorted(tuning.space.items())}
    present: dict[str, float] = {name: attrgetter(name)(params.recipe) for name in space}
    names = read_json(packed / "classes.json")
    price, start = contest_cost(spec, names, contest, params.quantize), None
    if params.train.weights:
        start = initial_weights(Path(params.train.weights), spec, len(names), params.seed, "tune")

    def propose(trial: optuna.trial.Trial) -> Proposal:
        values = {name: _suggest(trial, name, space[name]) for name in space}
        recipe = with_values(params.recipe, values)
        if trial.number == 0:
            recipe, values = params.recipe, present
        return Proposal(values, spec, recipe, price)

    groups = validation_groups(packed, tuning.splits)
    early = max(1, round(tuning.epochs * tuning.stop))
    plan = Plan(
        "tune",
        params.seed,
        tuning.trials,
        tuning.generation,
        tuple(sorted({early, tuning.epochs})),
        tuning.shards,
        "tpe",
        "score",
        baseline=0,
    )
    count = worker_setting(tuning.workers, params.recipe)
    with open_workers(count, tuning.cluster, tuning.generation) as pool:
        runner = TrialRunner(plan, contest, packed, pool, kept, start)
        study = Study(plan, contest, propose, runner)
        inside = {name: min(max(present[name], low), high) for name, (low, high) in space.items()}
        study.enqueue(inside)
        trials = study.run()
        choice = decide(trials, runner, groups)
    say(choice.why)
    return choice.ranked[0].proposal.recipe, study_record(trials, choice, contest)


def _suggest(trial: optuna.trial.Trial, name: str, bounds: Range) -> float:
    """Return a value within `bounds`, drawn on a log scale where they allow one."""
    low, high = bounds
    if parameters(Recipe)[name]["type"] == "integer":
        return trial.suggest_int(name, int(low), int(high), log=low > 0)
    # four digits: what is written is what was trained, and a libm's last bit changes nothing
    return float(f"{trial.suggest_float(name, low, high, log=low > 0):.3e}")
