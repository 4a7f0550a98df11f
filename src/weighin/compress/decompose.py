"""The decompose stage: a trained network pruned, its layers factorized, never with more MACs.

The ranks of the whole network are chosen by a rule: one function each, named in params.yaml.

`by_evbmf` finds the rank of a matrix in noise by empirical variational Bayes: no knob to turn.
Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of fully-observed variational
Bayesian matrix factorization", JMLR 14 (2013), in the form of Nakajima, Tomioka, Sugiyama and
Babacan, "Condition for perfect dimensionality recovery by variational Bayesian PCA", JMLR 16
(2015). The use for convolutions, on both unfoldings: Kim et al. (ICLR 2016).

V (L, M), L <= M, alpha = L / M, is a sum of rank-one terms and noise of variance s2. With the prior
learned from V, the term of the singular value g stays if g^2 / (M s2) >= x, where

    x = (1 + t) (1 + alpha / t),  phi(t) + phi(t / alpha) = 0,  phi(z) = log(1 + z) / z - 1/2

and s2 minimizes the free energy, whose part that depends on it is the sum over all g of

    psi(y) = y - log y + [y > x] (log(1 + t) + alpha log(1 + t / alpha) - t)
    y = g^2 / (M s2),  t = (y - 1 - alpha + sqrt((y - 1 - alpha)^2 - 4 alpha)) / 2
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from scipy.optimize import brentq, minimize_scalar

from weighin.compress.context import Array, CompressionContext, Probe, write_network
from weighin.compress.factorize import (
    FactorizableLayer,
    Layer,
    by_energy,
    by_ratio,
    candidate_ranks,
    factorize_network,
    find_factorizable,
    find_layers,
    matrices,
    relative_error,
    spectra,
)
from weighin.compress.pruning import prune
from weighin.determinism import generator
from weighin.files import JsonCache, canonical_json, write_json
from weighin.grading.score import ConfusionMatrix
from weighin.network.build import Factorization, Method, Ranks, ranks_to_dict
from weighin.network.cost import folded_macs
from weighin.progress import Progress, say
from weighin.training.device import record_device
from weighin.training.process_group import is_first
from weighin.training.weights import Trained

Layers = Sequence[FactorizableLayer]
STARTS = (0.0, 0.25, 0.5, 0.75)  # shares of the candidates: 0 leaves every layer as it is


@dataclass(frozen=True)
class LayerRow:
    """A layer of the exported network; `method` and what follows is None where it was left."""

    path: str
    shape: tuple[int, ...]  # of its weight
    macs_before: int
    macs_after: int
    method: str | None = None
    ranks: tuple[int, ...] | None = None
    error: float | None = None  # of the weights, relative, Frobenius
    sensitivity: float | None = None  # F1 lost on the validation split by this layer alone


def decompose(context: CompressionContext, out: Path) -> None:
    """Write network.yaml, ranks.yaml, weights.safetensors and layers.json into the folder `out`.

    Where `decompose.enabled` is false they are the trained network's own.

    Raises:
        NetworkError: the weights are not those of the rows.
        WorkerError, OutputError: run again, it goes on.
    """
    if context.params.decompose.enabled:
        network, table = _factorized(context, prune(context))
    else:
        network = context.trained
        table = [_untouched(layer) for layer in find_layers(network.spec, context.classes)]
    if is_first():
        write_network(out, network)
        record_device(out, context.recipe if context.params.decompose.enabled else None)
        write_json(out / "layers.json", [asdict(row) for row in table])


def _factorized(context: CompressionContext, network: Trained) -> tuple[Trained, list[LayerRow]]:
    layers = find_layers(network.spec, context.classes)
    probe = Probe(context.packed, network, context.params.seed)
    found = find_factorizable(layers, cast(Method, context.params.decompose.method), probe)
    ranks = RULES[context.params.decompose.ranks](context, probe, found)
    table = layer_table(layers, found, ranks, probe)
    before, after = sum(row.macs_before for row in table), sum(row.macs_after for row in table)
    say(f"decompose  {len(ranks)} of {len(layers)} layers, {before:,} -> {after:,} MACs")
    factors = {
        layer.path: layer.factors(ranks[layer.path]) for layer in found if layer.path in ranks
    }
    return factorize_network(network, ranks, context.classes, factors), table


def layer_table(
    layers: Sequence[Layer], found: Sequence[FactorizableLayer], ranks: Ranks, probe: Probe
) -> list[LayerRow]:
    """Return a row for every layer, in the order of their calls."""
    rows = {layer.path: _untouched(layer) for layer in layers}
    f1 = probe.confusion().f1
    for layer in found:
        how = ranks.get(layer.path)
        if how is not None:
            dense = layer.approximation(how)
            rows[layer.path] = replace(
                rows[layer.path],
                macs_after=layer.layer.macs_with(how),
                method=how.method,
                ranks=how.ranks,
                error=round(relative_error(layer.weight, dense), 6),
                sensitivity=round(f1 - probe.confusion({layer.path: dense}).f1, 6),
            )
    return list(rows.values())


def _untouched(layer: Layer) -> LayerRow:
    return LayerRow(layer.path, layer.weight_shape, layer.macs, layer.macs)


def ratio(context: CompressionContext, probe: Probe, layers: Layers) -> Ranks:
    """Keep `decompose.ratio` of each side's full rank."""
    return _each(layers, lambda layer: by_ratio(layer, context.params.decompose.ratio))


def energy(context: CompressionContext, probe: Probe, layers: Layers) -> Ranks:
    """Keep `decompose.energy` of the squared singular values."""
    return _each(layers, lambda layer: by_energy(layer, context.params.decompose.energy))


def evbmf(context: CompressionContext, probe: Probe, layers: Layers) -> Ranks:
    """Keep what stands out from noise."""
    return _each(layers, by_evbmf)


def _each(layers: Layers, rule: Callable[[FactorizableLayer], Factorization | None]) -> Ranks:
    return {layer.path: how for layer in layers if (how := rule(layer)) is not None}


def sensitivity(context: CompressionContext, probe: Probe, layers: Layers) -> Ranks:
    """Spend `decompose.budget` where the labels change least a MAC."""
    budget = context.params.decompose.budget
    cache = JsonCache(context.scratch / "sensitivity.json")
    macs = folded_macs(probe.network.spec, context.classes)
    ranks = least_divergence(layers, probe, (1 - budget) * macs, cache)
    left = folded_macs(probe.network.spec, context.classes, ranks) / macs
    if left > budget:
        least = f"factorizing leaves {left:.3f} of the MACs at least"
        say(f"decompose.budget is {budget:g}, but {least}")
    return ranks


@dataclass(frozen=True)
class Candidate:
    """One choice for a layer: the MACs that it saves, and the divergence (nats) that it causes."""

    saved: int
    divergence: float
    how: Factorization | None = None


def least_divergence(layers: Layers, probe: Probe, saving: float, cache: JsonCache) -> Ranks:
    """Return ranks that save at least `saving` MACs, or all that can be saved.

    Each layer is factorized alone at every candidate, and its divergence measured (Probe). Of the
    points (MACs saved, divergence) only those on the lower convex hull can be best; the hulls'
    edges, sorted by slope, are then taken until the budget is met. It is the greedy solution of the
    multiple-choice knapsack (Sinha and Zoltners, 1979), exact up to its last edge where divergences
    add up.
    """
    hulls, progress = {}, Progress("sensitivity", len(layers))
    for layer in layers:
        hulls[layer.path] = hull(_measured(layer, probe, cache))
        progress.step(layer.path)
    edges = [
        (_slope(*edge), path, *edge) for path, found in hulls.items() for edge in pairwise(found)
    ]
    chosen: dict[str, Factorization] = {}
    saved = 0
    for _, path, before, after in sorted(edges, key=lambda edge: edge[0]):  # a hull's stay in order
        if saved >= saving:
            break
        assert after.how is not None
        chosen[path] = after.how
        saved += after.saved - before.saved
    return chosen


def hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the lower convex hull of the candidates and of doing nothing, by growing saving."""
    kept = [Candidate(0, 0.0)]
    for candidate in sorted(candidates, key=lambda found: (found.saved, found.divergence)):
        while len(kept) > 1 and _slope(kept[-2], candidate) <= _slope(kept[-2], kept[-1]):
            kept.pop()
        kept.append(candidate)
    return kept


def _slope(a: Candidate, b: Candidate) -> float:
    return (b.divergence - a.divergence) / (b.saved - a.saved)


def _measured(layer: FactorizableLayer, probe: Probe, cache: JsonCache) -> list[Candidate]:
    choices = candidate_ranks(layer)
    divergences = cache(
        layer.path,
        lambda: [probe.divergence({layer.path: layer.approximation(how)}) for how in choices],
    )
    pairs = zip(choices, divergences, strict=True)
    return [Candidate(layer.saving(how), divergence, how) for how, divergence in pairs]


def search(context: CompressionContext, probe: Probe, layers: Layers) -> Ranks:
    """Take the lowest score of `decompose.trials` sets of ranks, drawn by Optuna.

    A trial is measured without training, so the score of what is chosen is a bound on what
    finetuning reaches, and the search takes only what a network bears at once. The first trials are
    the network as it is and every layer at the same share of its candidates; the rest are TPE's
    (Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011). Every ask has a
    fresh sampler seeded by its address and every measure is on file, so a killed search ends as if
    it had not been.
    """
    cache = JsonCache(context.scratch / "ranks.json")

    def score(ranks: Ranks) -> float:
        changed = [layer for layer in layers if layer.path in ranks]
        counts = cache(
            canonical_json(ranks_to_dict(ranks)),
            lambda: probe.confusion(
                {layer.path: layer.approximation(ranks[layer.path]) for layer in changed}
            ).counts.tolist(),
        )
        found = ConfusionMatrix(probe.validation.classes, np.array(counts))
        return context.score(replace(probe.network, ranks=ranks), found)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    choices = {layer.path: [None, *candidate_ranks(layer)] for layer in layers}
    for share in STARTS:
        study.enqueue_trial({k: round(share * (len(found) - 1)) for k, found in choices.items()})
    trials, seed = context.params.decompose.trials, context.params.seed
    progress, tried = Progress("rank search", trials), []
    for number in range(trials):
        study.sampler = _sampler(seed, number)
        trial = study.ask()
        ranks = _drawn(trial, choices)
        tried.append((score(ranks), ranks))
        study.tell(trial, tried[-1][0])
        best = min(found for found, _ in tried)
        progress.step(f"{len(ranks)} layers  score {tried[-1][0]:.4f}  best {best:.4f}")
    return min(tried, key=lambda one: one[0])[1]


def _drawn(trial: Any, choices: dict[str, list[Factorization | None]]) -> Ranks:
    picked = {
        path: found[trial.suggest_int(path, 0, len(found) - 1)] for path, found in choices.items()
    }
    return {path: how for path, how in picked.items() if how is not None}


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    drawn = int(generator(seed, "decompose", "ask", number).integers(2**31))
    with warnings.catch_warnings():  # Optuna calls multivariate experimental
        warnings.simplefilter("ignore")
        return optuna.samplers.TPESampler(
            n_startup_trials=2 * len(STARTS), multivariate=True, seed=drawn
        )


RULES: dict[str, Callable[[CompressionContext, Probe, Layers], Ranks]] = {
    "ratio": ratio,
    "energy": energy,
    "evbmf": evbmf,
    "sensitivity": sensitivity,
    "search": search,
}


GRID = 512  # noise variances looked at before the minimum is refined
ROUNDING = 1e-12  # of squares: what is below is no noise but float32


def by_evbmf(layer: FactorizableLayer) -> Factorization | None:
    """Return the ranks that stand out from noise, or None if the MACs do not fall.

    None as well where nothing stands out on a side: there is no structure to keep.
    """
    found = matrices(layer.weight, layer.method)
    values = spectra(layer.weight, layer.method)
    sides = [evbmf_rank(s, matrix.shape) for s, matrix in zip(values, found, strict=True)]
    return layer.ranks(sides) if all(sides) else None


def evbmf_rank(values: Array, shape: tuple[int, ...]) -> int:
    """Return how many singular values of a matrix of this shape stand out from its noise.

    `values` are all of them, falling.
    """
    small, large = min(shape), max(shape)
    edge = threshold(small / large) * large * noise_variance(values, small, large)
    return int(np.sum(values**2 > (edge or ROUNDING * values[0] ** 2)))


def threshold(alpha: float) -> float:
    """Return x: the least g^2 / (M s2) of a term that stays, for alpha in (0, 1]."""

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    t = float(brentq(lambda t: phi(t) + phi(t / alpha), 1e-12, 1e3))
    return (1 + t) * (1 + alpha / t)


def noise_variance(values: Array, small: int, large: int) -> float:
    """Return s2, the noise variance of the least free energy; 0 for an exactly low-rank matrix.

    It lies between two bounds (2015, theorem 3): all of V is noise, or what is past the most terms
    that can stay. The free energy has one valley around the least point of a grid.
    """
    alpha, squares = small / large, values**2
    most = min(math.ceil(small / (1 + alpha)) - 1, len(values) - 1)
    x = threshold(alpha)
    tail = squares[most:]
    high = float(squares.sum()) / (small * large)
    low = max(float(tail[0]) / (large * x), float(tail.sum()) / ((small - most) * large))
    if low <= high * ROUNDING:
        return 0.0

    def energy(noise: float) -> float:
        return _free_energy(squares / (large * noise), alpha, x)

    grid = np.geomspace(low, max(high, low), GRID)
    best = int(np.argmin([energy(noise) for noise in grid.tolist()]))
    bounds = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
    return float(minimize_scalar(energy, bounds=bounds, method="bounded", options={"xatol": 0}).x)


def _free_energy(y: Array, alpha: float, x: float) -> float:
    kept = y[y > x]
    shifted = kept - 1 - alpha
    t = (shifted + np.sqrt(shifted**2 - 4 * alpha)) / 2
    terms = np.log1p(t) + alpha * np.log1p(t / alpha) - t
    floor = np.maximum(y, 1e-300)
    return float(np.sum(y - np.log(floor)) + np.sum(terms))
