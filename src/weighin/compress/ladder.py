"""Which ranks a layer could have, and the plain rules that pick them: a share, or an energy.

A rule gives one rank for each side of a method that has a spectrum (algebra.spectra). CP has one
rank for both sides: the larger, which is the least that a CP of those multilinear ranks can have.
A choice counts only if the layer's exact MACs fall.
"""

from dataclasses import dataclass, field

import numpy as np

from weighin.compress.algebra import Array, factors, product, spectra
from weighin.compress.inputs import Metric, along_inputs
from weighin.compress.sites import Site
from weighin.network.factorized import Factorization, Method

SHARES = tuple(step / 16 for step in range(1, 16))
ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


@dataclass(frozen=True)
class Candidate:
    """A site that a method fits, its weight, its inputs and the spectra that ranks cut."""

    site: Site
    method: Method
    weight: Array = field(repr=False)
    metric: Metric | None = field(repr=False)
    spectra: list[Array] = field(repr=False)

    def ranks(self, sides: list[int]) -> Factorization | None:
        """Return the factorization of these ranks a side, or None if the MACs do not fall."""
        if self.method == "tucker":
            sides = _within(sides, self.weight)
        ranks = (max(sides),) if self.method == "cp" else tuple(sides)
        how = Factorization(self.method, ranks)
        return how if self.site.macs_with(how) < self.site.macs else None

    def factors(self, how: Factorization) -> list[Array]:
        """Return the pieces' weights; they lose least of the outputs where the inputs are known."""
        if self.metric is None:
            return factors(self.weight, how)
        first, *others = factors(along_inputs(self.weight, self.metric.root), how)
        return [along_inputs(first, self.metric.inverse), *others]

    def approximation(self, how: Factorization) -> Array:
        """Return the dense weight that the layer would have."""
        return product(self.factors(how), how.method)


def candidate(site: Site, method: Method, weight: Array, metric: Metric | None = None) -> Candidate:
    """Return a layer with its spectra computed: of its weight times its inputs, if known."""
    seen = weight if metric is None else along_inputs(weight, metric.root)
    return Candidate(site, method, weight, metric, spectra(seen, method))


def by_ratio(candidate: Candidate, ratio: float) -> Factorization | None:
    """Return ranks that are a share of each side's, at least 1; None if the MACs do not fall."""
    return candidate.ranks([max(1, round(ratio * len(values))) for values in candidate.spectra])


def by_energy(candidate: Candidate, energy: float) -> Factorization | None:
    """Return the least ranks that keep this share of the squared singular values on each side.

    They add up to the mean square of the outputs where the inputs are known, else to the weight's;
    Tucker-2, which cuts two sides, keeps at least 2 * energy - 1 of it. None if the MACs do not
    fall.
    """
    return candidate.ranks([_least(values, energy) for values in candidate.spectra])


def ladder(candidate: Candidate) -> list[Factorization]:
    """Return the distinct choices from the dearest to the cheapest, each with fewer MACs.

    Shares of sixteenths; where there are two sides, also those of equal energy.
    """
    choices = (
        [by_energy(candidate, energy) for energy in ENERGIES] if len(candidate.spectra) > 1 else []
    )
    choices += [by_ratio(candidate, share) for share in SHARES]
    found: dict[int, Factorization] = {}
    for how in choices:
        if how is not None:
            found.setdefault(candidate.site.macs_with(how), how)
    return [found[macs] for macs in sorted(found, reverse=True)]


def _least(values: Array, energy: float) -> int:
    kept = np.cumsum(values**2)
    # the last sum stands for all of it, so that an energy of 1 is every value that is not zero
    return int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12))) + 1


def _within(sides: list[int], weight: Array) -> list[int]:
    """Return Tucker ranks with neither over what the other one leaves."""
    inner, outer = sides
    area = weight.shape[2] * weight.shape[3]
    outer = min(outer, inner * area)
    return [min(inner, outer * area), outer]
