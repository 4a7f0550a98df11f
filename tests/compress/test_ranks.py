"""Ranks under a budget: the saving goes where the labels change least."""

import numpy as np
from small import CLASSES, SPEC, untrained

from weighin.compress.decompose import Candidate, hull, least_divergence
from weighin.compress.factorize import factorizable, find_layers, relative_error
from weighin.files import JsonCache
from weighin.network.build import Factorization

LAYERS = {layer.path: layer for layer in find_layers(SPEC, len(CLASSES))}
WEIGHT = untrained().weights["1.0.conv.0.weight"].astype(np.float64)


def test_hull_keeps_what_some_price_would_choose():
    points = [(10, 5.0), (20, 1.0), (30, 4.0), (40, 4.0), (50, 9.0)]
    kept = hull([Candidate(saved, divergence) for saved, divergence in points])
    assert [(found.saved, found.divergence) for found in kept] == [
        (0, 0),
        (20, 1.0),
        (40, 4.0),
        (50, 9.0),
    ]


class Counting:
    """A probe whose divergence is the squared relative error, and which counts its calls."""

    def __init__(self, layers) -> None:
        self.weights = {c.path: c.weight for c in layers}
        self.calls = 0

    def divergence(self, changes):
        self.calls += 1
        return sum(relative_error(self.weights[k], dense) ** 2 for k, dense in changes.items())


def test_a_budget_is_met_where_the_divergence_is_least(tmp_path):
    """A layer of rank 2 loses nothing down to rank 2, so it is cut to that first."""
    wide, narrow = LAYERS["1.0.conv.0"], LAYERS["1.0.conv.3"]
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 2)) @ rng.standard_normal((2, 32))
    low = factorizable(narrow, "svd", weight[:, :, None, None])
    layers = [factorizable(wide, "tucker", WEIGHT), low]
    probe, cache = Counting(layers), JsonCache(tmp_path / "cache.json")
    saving = narrow.macs - narrow.macs_with(Factorization("svd", (2,)))
    chosen = least_divergence(layers, probe, saving, cache)
    assert chosen == {"1.0.conv.3": Factorization("svd", (2,))}
    calls = probe.calls
    more = least_divergence(layers, probe, saving + 1, cache)
    assert set(more) == {"1.0.conv.0", "1.0.conv.3"}
    assert least_divergence(layers, probe, 10**9, cache).keys() == more.keys()
    assert least_divergence(layers, probe, 0, cache) == {}
    assert probe.calls == calls  # everything else came from the cache
