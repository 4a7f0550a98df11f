"""The search stage: a network for the contest, chosen from a space, or taken as it is."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import optuna

from weighin.data.pack import packed_sizes
from weighin.errors import NetworkError, ParamsError
from weighin.files import read_json, write_text
from weighin.images import Size
from weighin.network.build import build
from weighin.network.cost import Cost, cost
from weighin.network.macs import reject_hidden_work
from weighin.network.spec import NetworkSpec, read_spec, shipped
from weighin.params import Contest, Params, Recipe
from weighin.progress import say
from weighin.search.choice import choose, study_record
from weighin.search.cluster import open_workers
from weighin.search.runner import TrialRunner
from weighin.search.space import Space, read_space, sample_network
from weighin.search.study import Plan, Proposal, Propose, Study, Trial
from weighin.search.trials import StudyRecord, write_trials
from weighin.training.device import record_device, require_device, worker_setting


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
    classes = len(read_json(packed / "classes.json"))
    propose, plan = proposer(space, params.recipe, classes), planned(params)
    count = worker_setting(knobs.workers, params.recipe)
    with open_workers(count, knobs.cluster, knobs.generation) as pool:
        study = Study(plan, contest, propose, TrialRunner(plan, contest, packed, pool, kept))
        trials = study.run()
    _need_some(trials, params)
    choice = choose(trials, contest, params.seed)
    chosen = choice.ranked[0].proposal.spec
    reject_hidden_work(build(chosen, classes), chosen.input)
    say(choice.why)
    return chosen, study_record(trials, choice, contest)


def proposer(space: Space, recipe: Recipe, classes: int) -> Propose:
    """Return what makes a network of `space`, and its price, of an Optuna trial."""
    counted = cache(lambda spec: _cost(spec, classes))

    def propose(trial: optuna.trial.Trial) -> Proposal | None:
        spec, values = sample_network(space, trial)
        price = counted(spec)
        return None if price is None else Proposal(values, spec, recipe, price)

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
    )


def rungs(epochs: int, count: int) -> tuple[int, ...]:
    """Return the epochs of `count` rungs, each twice the one before and the last all `epochs`."""
    return tuple(sorted({max(1, epochs >> halvings) for halvings in range(count)}))


def _cost(spec: NetworkSpec, classes: int) -> Cost | None:
    """Return what a network costs, or None where its rows make none."""
    try:
        return cost(spec, classes)
    except NetworkError:
        return None


def _need_some(trials: list[Trial], params: Params) -> None:
    if any(trial.state == "complete" for trial in trials):
        return
    gate = f"contest.max_macs = {params.contest.max_macs:,}"
    if not trials:
        problem = f"no draw of the space {params.search.space} makes a network"
        raise ParamsError(problem, "give its rows fewer strides, or the images larger sizes")
    least = min(trial.proposal.cost.macs for trial in trials)
    problem = (
        f"the space {params.search.space} has nothing under {gate}: of {len(trials)} networks the "
        f"smallest has {least:,} MACs"
    )
    raise ParamsError(problem, "raise contest.max_macs, or name a space of smaller networks")


def _brought(packed: Path, params: Params) -> NetworkSpec:
    """Return the network that `search.network` names, once it keeps the rules."""
    name = params.search.network
    if name is None:
        problem = "search.enabled is false and search.network is null"
        raise ParamsError(problem, "name a rows file, such as network: small")
    classes = len(read_json(packed / "classes.json"))
    spec, macs = check_network(name, packed_sizes(packed), classes, params.contest)
    say(f"{name} as it is: {macs:,} MACs")
    return spec


def check_network(
    name: str, sizes: Sequence[Size], classes: int, contest: Contest
) -> tuple[NetworkSpec, int]:
    """Return a network that is to be taken as it is, and its MACs.

    Raises:
        ParamsError: it takes no size that is packed, or is over `contest.max_macs`.
        NetworkError, HiddenWorkError: its rows make no network, or one that hides work.
    """
    spec = read_spec(shipped(name) if shipped(name).exists() else Path(name))
    if spec.input not in sizes:
        shown = ", ".join(str(list(size)) for size in sizes)
        problem = f"{name} takes {list(spec.input)} pixels; prepare.sizes has {shown}"
        raise ParamsError(problem, f"add {list(spec.input)} to prepare.sizes in params.yaml")
    macs = cost(spec, classes).macs
    if macs > contest.max_macs:
        problem = f"{name} has {macs:,} MACs, contest.max_macs is {contest.max_macs:,}"
        raise ParamsError(problem, "raise contest.max_macs, or name a smaller network")
    reject_hidden_work(build(spec, classes), spec.input)
    return spec, macs
