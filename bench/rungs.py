"""What the search's rungs tell of the end: `python -m bench.rungs`.

    search.rank_rung_<epochs>  Spearman's rank correlation, over some networks, of the score after
                               so many epochs of a trial with the score of the whole training; the
                               middle of the seeds
    search.rank_seeds          the same of the whole training with itself under another seed: what
                               no rung can surpass, as far as so few networks tell

The networks are drawn from the search's space at random, under the gate, and are the same for all
seeds; each is trained as a trial of the search is, to each rung, and from the start once more with
the recipe of the train stage for FINAL epochs. Photographs: bench/search.py's.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench.arms import CLASSES, MAX_MACS, packed_in_halves, parameters
from bench.figures import Figures, figure, is_quick, told, without
from bench.waste7 import ROOT, TRAIN
from weighin.determinism import pin
from weighin.parallel import cores

if TYPE_CHECKING:
    from weighin.search.study import Proposal

COMMAND = "python -m bench.rungs"
NETWORKS, SEEDS = 8, (1, 2, 3)
EPOCHS, RUNGS, FINAL = 32, (8, 16, 32), 64
Scores = list[float]  # after each rung, and at the end; lower is better


def figures(quick: bool = False) -> Figures:
    """Return this part's figures."""
    if not TRAIN.is_dir():
        return without(TRAIN)
    seeds = SEEDS[:2] if quick else SEEDS
    runs = [(seed, network) for network in range(NETWORKS) for seed in seeds]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(cores()) as pool:
        pack = packed_in_halves(Path(name))
        found = dict(zip(runs, pool.map(lambda run: measured(run, pack), runs), strict=True))
    return correlated([[found[seed, network] for network in range(NETWORKS)] for seed in seeds])


def correlated(seeds: list[list[Scores]]) -> Figures:
    """Return the figures of each seed's networks."""
    from scipy.stats import spearmanr

    columns = [list(zip(*networks, strict=True)) for networks in seeds]  # by rung
    found = {
        f"rank_rung_{rung}": [float(spearmanr(one[place], one[-1])[0]) for one in columns]
        for place, rung in enumerate(RUNGS)
    }
    pairs = itertools.combinations(columns, 2)
    found["rank_seeds"] = [float(spearmanr(one[-1], other[-1])[0]) for one, other in pairs]
    return {
        f"search.{name}": figure(values, "correlation", "printed", COMMAND)
        for name, values in found.items()
    }


def measured(run: tuple[int, int], pack: Path) -> Scores:
    """Return what a process of its own finds for a seed and a network."""
    seed, network = run
    line = [sys.executable, "-m", "bench.rungs", "--measure", str(seed), str(network), str(pack)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    scores: Scores = json.loads(done.stdout)
    print(f"seed {seed}, network {network}:", *scores, flush=True)
    return scores


def scores(seed: int, network: int, pack: Path) -> Scores:
    """Return the scores of a network after each rung, and of its whole training."""
    from dataclasses import replace

    from weighin.search.evaluation import Task, evaluate
    from weighin.search.runner import shortened
    from weighin.search.study import Trial, proxy_score
    from weighin.training.trainer import Job

    proposal = drawn(pack)[network]
    params = parameters(seed)
    recipe = shortened(params.recipe, params.search.shards)
    trial = Job(proposal.spec, recipe, EPOCHS, pack, (seed, "rungs", network), validations=0)
    whole = replace(trial, recipe=params.recipe, epochs=FINAL, address=(seed, "end", network))
    found, state = [], b""
    for job, until in (*((trial, rung) for rung in RUNGS), (whole, FINAL)):
        outcome = evaluate(Task(network, job, until, state if job is trial else b""))
        state = outcome.state
        metrics = Trial(network, proposal, measured=outcome.measured).metrics()
        found.append(round(proxy_score(params.contest, metrics), 6))
    return found


def drawn(pack: Path) -> "list[Proposal]":
    """Return the networks, the same in every process."""
    import optuna

    from weighin.data.pack import packed_sizes
    from weighin.network.cost import cost
    from weighin.search.space import read_space
    from weighin.search.stages import proposer

    params = parameters(0)
    space = read_space(params.search.space, packed_sizes(pack))
    propose = proposer(space, params.recipe, lambda spec: cost(spec, CLASSES))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: list[Proposal] = []
    while len(found) < NETWORKS:
        proposal = propose(study.ask())
        if proposal is not None and proposal.cost.macs <= MAX_MACS:
            found.append(proposal)
    return found


if __name__ == "__main__":
    pin()
    if "--measure" in sys.argv:
        print(json.dumps(scores(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
    else:
        print(told(figures(is_quick())))
