"""Ranks under a MACs budget: the saving goes where it changes the labels least.

Each layer is factorized alone at every rung of its ladder, and its divergence measured (Probe). Of
the points (MACs saved, divergence) only those on the lower convex hull can be best; the hulls'
edges, sorted by slope, are then taken until the budget is met. It is the greedy solution of the
multiple-choice knapsack (Sinha and Zoltners, 1979), exact up to its last edge where divergences
add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from weighin.compress.ladder import Candidate, ladder
from weighin.compress.memo import Memo
from weighin.compress.probe import Probe
from weighin.network.factorized import Factorization
from weighin.progress import Progress


@dataclass(frozen=True)
class Rung:
    """One choice for a layer: what it saves (MACs) and what it costs (nats)."""

    saved: int
    damage: float
    how: Factorization | None = None


def cheapest_damage(
    candidates: Sequence[Candidate], probe: Probe, saving: float, memo: Memo
) -> dict[str, Factorization]:
    """Return ranks that save at least `saving` MACs, or all that can be saved."""
    hulls = {c.site.path: hull(rungs) for c, rungs in measured(candidates, probe, memo)}
    chosen: dict[str, Factorization] = {}
    at = dict.fromkeys(hulls, 0)
    saved = 0
    for path in _edges(hulls):
        if saved >= saving:
            break
        before, after = hulls[path][at[path]], hulls[path][at[path] + 1]
        assert after.how is not None
        at[path] += 1
        chosen[path] = after.how
        saved += after.saved - before.saved
    return chosen


def measured(
    candidates: Sequence[Candidate], probe: Probe, memo: Memo
) -> list[tuple[Candidate, list[Rung]]]:
    """Return each layer's rungs, with what each alone does to the labels."""
    found, progress = [], Progress("sensitivity", len(candidates))
    for candidate in candidates:
        found.append((candidate, _rungs(candidate, probe, memo)))
        progress.step(candidate.site.path)
    return found


def hull(rungs: Sequence[Rung]) -> list[Rung]:
    """Return the lower convex hull of the rungs and of doing nothing, by growing saving."""
    kept = [Rung(0, 0.0)]
    for rung in sorted(rungs, key=lambda rung: (rung.saved, rung.damage)):
        while len(kept) > 1 and _slope(kept[-2], rung) <= _slope(kept[-2], kept[-1]):
            kept.pop()
        kept.append(rung)
    return kept


def _slope(a: Rung, b: Rung) -> float:
    return (b.damage - a.damage) / (b.saved - a.saved)


def _edges(hulls: Mapping[str, list[Rung]]) -> list[str]:
    """Return the layer of every edge, the gentlest slope first; one layer's stay in order."""
    slopes = [(_slope(*pair), path) for path, points in hulls.items() for pair in pairwise(points)]
    return [path for _, path in sorted(slopes, key=lambda edge: edge[0])]


def _rungs(candidate: Candidate, probe: Probe, memo: Memo) -> list[Rung]:
    site, choices = candidate.site, ladder(candidate)
    damages = memo(
        site.path,
        lambda: [probe.divergence({site.path: candidate.approximation(how)}) for how in choices],
    )
    pairs = zip(choices, damages, strict=True)
    return [Rung(site.macs - site.macs_with(how), damage, how) for how, damage in pairs]
