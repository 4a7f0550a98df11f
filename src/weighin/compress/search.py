"""Ranks by search: Optuna picks a rung of every layer's ladder, the contest's score judges.

A trial is measured without training, so the score of what is chosen is a bound on what finetuning
reaches, and the search takes only what a network bears at once. The first trials are the network
as it is and every layer at the same share of its ladder; the rest are TPE's (Bergstra et al.,
"Algorithms for hyper-parameter optimization", NeurIPS 2011). Every ask has a fresh sampler seeded
by its address and every measure is on file, so a killed search ends as if it had not been.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna

from weighin.compress.ladder import Candidate, ladder
from weighin.determinism import generator
from weighin.network.factorized import Factorization
from weighin.progress import Progress

Ranks = dict[str, Factorization]
STARTS = (0.0, 0.25, 0.5, 0.75)  # shares of the ladders: 0 leaves every layer as it is


def search_ranks(
    candidates: Sequence[Candidate], judge: Callable[[Ranks], float], trials: int, seed: int
) -> Ranks:
    """Return the ranks of the lowest score among so many trials; the first of equals."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    ladders = {c.site.path: [None, *ladder(c)] for c in candidates}
    for share in STARTS:
        study.enqueue_trial({k: round(share * (len(rungs) - 1)) for k, rungs in ladders.items()})
    progress, tried = Progress("rank search", trials), []
    for number in range(trials):
        study.sampler = _sampler(seed, number)
        trial = study.ask()
        ranks = _drawn(trial, ladders)
        tried.append((judge(ranks), ranks))
        study.tell(trial, tried[-1][0])
        best = min(score for score, _ in tried)
        progress.step(f"{len(ranks)} layers  score {tried[-1][0]:.4f}  best {best:.4f}")
    return min(tried, key=lambda one: one[0])[1]


def _drawn(trial: Any, ladders: dict[str, list[Factorization | None]]) -> Ranks:
    picked = {
        path: rungs[trial.suggest_int(path, 0, len(rungs) - 1)] for path, rungs in ladders.items()
    }
    return {path: how for path, how in picked.items() if how is not None}


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    drawn = int(generator(seed, "decompose", "ask", number).integers(2**31))
    with warnings.catch_warnings():  # Optuna calls multivariate experimental
        warnings.simplefilter("ignore")
        return optuna.samplers.TPESampler(
            n_startup_trials=2 * len(STARTS), multivariate=True, seed=drawn
        )
