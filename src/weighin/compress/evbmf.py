"""The rank of a matrix in noise, by empirical variational Bayes: no knob to turn.

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

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from weighin.compress.candidates import FactorizableLayer
from weighin.compress.factorize import Array, matrices, spectra
from weighin.network.factorized import Factorization

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
