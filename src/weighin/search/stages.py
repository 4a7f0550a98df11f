"""The search and tune stages: a network for the contest, then the recipe's knobs for it.

search takes the network from a space, or as it is. tune is seeded TPE in generations; its trial 0
is the recipe as it stands in params, so the one that is chosen is never worse on validation than
what there was.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from operator import attrgetter
from pathlib import Path

import optuna

from weighin.data.pack import packed_sizes, validation_groups
from weighin.errors import NetworkError, ParamsError
from weighin.files import read_json, write_json, write_text
from weighin.grading.score import LIMITS, Cost, over_limits
from weighin.images import Size
from weighin.network.build import build
from weighin.network.cost import reject_hidden_work
from weighin.network.export import contest_cost
from weighin.network.spec import NetworkSpec, read_spec, rows_file, rows_of
from weighin.params import Params, Recipe
from weighin.progress import say
from weighin.search.choice import decide, study_record
from weighin.search.runner import TrialRunner
from weighin.search.space import Space, read_space, sample_network
from weighin.search.study import Plan, Proposal, Propose, Study, Trial
from weighin.search.trials import StudyRecord, write_trials
from weighin.search.workers import open_workers
from weighin.training.device import record_device, require_device, worker_setting
from weighin.training.weights import initial_weights
from weighin.validation import parameters, with_values

Range = tuple[float, float]


def search(packed: Path, out: Path, params: Params, kept: Path) -> None:
    """Write the folder `out`: network.yaml, and trials.json where there was a search.

    `packed` holds the images (data/pack.py); `kept` is the folder of finished evaluations, so that
    a killed search goes on, and one of more trials trains the new ones alone.

    Raises:
        ParamsError: the space, or `search.network`, is not usable; nothing is under the gate.
        NetworkError, HiddenWorkError: the network that was brought breaks a rule.
        MachineError: the recipe's device is not here.
        WorkerError: workers went away too often; finished evaluations are kept.
    """
    (out / "trials.json").unlink(missing_ok=True)
    if params.search.enabled:
        found, trials = _searched(packed, params, kept)
        write_trials(out, trials)
    else:
        found = _brought(packed, params)
    record_device(out, params.recipe if params.search.enabled else None)
    write_text(out / "network.yaml", found.to_yaml())


def _searched(packed: Path, params: Params, kept: Path) -> tuple[NetworkSpec, StudyRecord]:
    knobs, contest = params.search, params.contest
    require_device(params.recipe)
    space = read_space(knobs.space, packed_sizes(packed))
    classes = read_json(packed / "classes.json")

    def price(spec: NetworkSpec) -> Cost:
        return contest_cost(spec, classes, contest, params.quantize, axis=knobs.axis)

    groups = validation_groups(packed, knobs.splits)
    propose, plan = proposer(space, params.recipe, price), planned(params)
    count = worker_setting(knobs.workers, params.recipe)
    with open_workers(count, knobs.cluster, knobs.generation) as pool:
        runner = TrialRunner(plan, contest, packed, pool, kept)
        trials = Study(plan, contest, propose, runner).run()
        _need_some(trials, params)
        choice = decide(trials, runner, groups)
    chosen = choice.ranked[0].proposal.spec
    reject_hidden_work(build(chosen, len(classes)), chosen.input)
    say(choice.why)
    return chosen, study_record(trials, choice, contest, knobs.axis)


def proposer(space: Space, recipe: Recipe, price: Callable[[NetworkSpec], Cost]) -> Propose:
    """Return what makes a network of `space`, and its cost, of an Optuna trial."""

    @cache
    def priced(spec: NetworkSpec) -> Cost | None:
        try:
            return price(spec)
        except NetworkError:  # its rows make no network
            return None

    def propose(trial: optuna.trial.Trial) -> Proposal | None:
        spec, values = sample_network(space, trial)
        found = priced(spec)
        return None if found is None else Proposal(values, spec, recipe, found)

    return propose


def planned(params: Params) -> Plan:
    """Return how the search of these parameters goes."""
    knobs = params.search
    return Plan(
        "search",
        params.seed,
        knobs.trials,
        knobs.generation,
        rungs(knobs.epochs, knobs.halving),
        knobs.shards,
        knobs.sampler,
        knobs.objective,
        axis=knobs.axis,
        augment=knobs.augment,
        warm_start=knobs.warm_start,
    )


def rungs(epochs: int, count: int) -> tuple[int, ...]:
    """Return the epochs of `count` rungs, each twice the one before and the last all `epochs`."""
    return tuple(sorted({max(1, epochs >> halvings) for halvings in range(count)}))


def _need_some(trials: list[Trial], params: Params) -> None:
    if any(trial.state == "complete" for trial in trials):
        return
    if not trials:
        problem = f"no draw of the space {params.search.space} makes a network"
        raise ParamsError(
            problem,
            "end its rows in Flatten and Linear: {c: classes}; give them fewer strides, or the "
            "images larger sizes",
        )
    costs = [trial.proposal.cost for trial in trials]
    broken = Counter(name for cost in costs for name in over_limits(params.contest, cost))
    ((limit, _),) = broken.most_common(1)
    field, unit = LIMITS[limit]
    least = min(value for cost in costs if (value := getattr(cost, field)))
    problem = (
        f"the space {params.search.space} has nothing under contest.{limit} = "
        f"{getattr(params.contest, limit):,}: of {len(trials)} networks the smallest has "
        f"{least:,} {unit}"
    )
    raise ParamsError(problem, f"raise contest.{limit}, or name a space of smaller networks")


def _brought(packed: Path, params: Params) -> NetworkSpec:
    """Return the network that `search.network` names, once it keeps the rules."""
    name = str(params.search.network)
    classes = read_json(packed / "classes.json")
    spec, cost = check_network(name, packed_sizes(packed), classes, params)
    say(f"{name} as it is: {cost.macs:,} MACs")
    return spec


def check_network(
    name: str, sizes: Sequence[Size], classes: Sequence[str], params: Params
) -> tuple[NetworkSpec, Cost]:
    """Return a network that is to be taken as it is, and its costs.

    Raises:
        ParamsError: it takes no size that is packed, or is over a limit of the contest.
        NetworkError, HiddenWorkError: its rows make no network, or one that hides work.
    """
    spec = read_spec(rows_file(name))
    if spec.input not in sizes:
        shown = ", ".join(str(list(size)) for size in sizes)
        problem = f"{name} takes {list(spec.input)} pixels; prepare.sizes has {shown}"
        raise ParamsError(problem, f"add {list(spec.input)} to prepare.sizes in params.yaml")
    with rows_of(name):
        found = contest_cost(spec, classes, params.contest, params.quantize)
        for limit, fault in over_limits(params.contest, found).items():
            raise ParamsError(
                f"{name} has {fault}", f"raise contest.{limit}, or name a smaller network"
            )
        reject_hidden_work(build(spec, len(classes)), spec.input)
    return spec, found


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
