"""Candidates: every layer found, what a share and an energy mean, and no choice that costs more."""

from itertools import pairwise

import numpy as np
import pytest
from small import CLASSES, ROWS, SPEC, untrained

from weighin.compress.factorize import (
    by_energy,
    by_ratio,
    candidate_ranks,
    factorizable,
    find_layers,
    relative_error,
)
from weighin.network.build import Factorization
from weighin.network.cost import folded_macs
from weighin.network.spec import NetworkSpec

LAYERS = {layer.path: layer for layer in find_layers(SPEC, len(CLASSES))}
WEIGHTS = untrained().weights


def a_layer(path: str, method: str):
    weight = WEIGHTS[f"{path}.weight"].astype(np.float64)
    return factorizable(LAYERS[path], method, weight)


def test_layers_are_all_layers_and_add_up_to_the_folded_network():
    paths = ["0.0.conv.0", "1.0.conv.0", "1.0.conv.3", "2.0.conv.5.gate.0", "6.0.conv.0"]
    assert [path for path in LAYERS if path in paths] == paths
    assert sum(layer.macs for layer in LAYERS.values()) == folded_macs(SPEC, len(CLASSES))
    assert LAYERS["1.0.conv.0"].weight_shape == (32, 16, 3, 3)
    assert LAYERS["1.0.conv.0"].shape == (16, 8, 8)


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("0.0.conv.0", Factorization("tucker", (2, 4))),
        ("1.0.conv.0", Factorization("cp", (9,))),
        ("1.1.conv.0", Factorization("spatial", (5,))),
        ("1.0.conv.3", Factorization("svd", (5,))),
        ("2.0.conv.5.gate.0", Factorization("svd", (3,))),
        ("6.0.conv.0", Factorization("svd", (1,))),
    ],
)
def test_a_layers_count_is_the_whole_networks(path, how):
    layer, classes = LAYERS[path], len(CLASSES)
    whole = folded_macs(SPEC, classes, {path: how}) - folded_macs(SPEC, classes)
    assert layer.macs_with(how) - layer.macs == whole


def test_methods_go_by_the_kind_of_layer():
    methods = {path: layer.method("cp") for path, layer in LAYERS.items()}
    assert methods["0.0.conv.0"] == "cp"
    assert methods["1.0.conv.3"] == methods["6.0.conv.0"] == "svd"
    assert methods["2.0.conv.3"] is None  # depthwise


def test_ratio_is_a_share_of_each_sides_full_rank():
    assert by_ratio(a_layer("1.0.conv.0", "tucker"), 0.25).ranks == (4, 8)
    assert by_ratio(a_layer("1.0.conv.0", "cp"), 0.25).ranks == (8,)
    assert by_ratio(a_layer("1.0.conv.0", "spatial"), 0.25).ranks == (12,)
    assert by_ratio(a_layer("1.0.conv.3", "svd"), 0.25).ranks == (4,)


def test_what_does_not_lower_the_macs_is_refused():
    """The seed's fixed 0.4 raised the MACs of pointwise layers with C_out >= 2 C_in."""
    rows = [[1, "Conv", [8, 1]], [1, "Conv", [48, 1]], *ROWS[4:]]
    spec = NetworkSpec.from_dict({"input": [8, 8], "width": 1.0, "rows": rows})
    layer = next(s for s in find_layers(spec, 3) if s.path == "1.0.conv.0")
    wide = factorizable(layer, "svd", np.random.default_rng(0).standard_normal((48, 8, 1, 1)))
    assert layer.macs == 64 * (48 * 8 + 48)
    assert layer.macs_with(Factorization("svd", (6,))) == 64 * (6 * 8 + 48 * 6 + 48)
    assert by_ratio(wide, 6 / 8).ranks == (6,)
    assert by_ratio(wide, 7 / 8) is None  # 7 * 56 > 384
    assert by_energy(wide, 1.0) is None


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    ("path", "method", "sides"),
    [("1.0.conv.0", "tucker", 2), ("1.0.conv.0", "spatial", 1), ("1.0.conv.3", "svd", 1)],
)
def test_energy_is_the_kept_share_of_the_squared_values(path, method, sides, share):
    chosen = a_layer(path, method)
    how = by_energy(chosen, share)
    for values, rank in zip(chosen.spectra, how.ranks, strict=True):
        assert np.sum(values[:rank] ** 2) >= share * np.sum(values**2)
        assert np.sum(values[: rank - 1] ** 2) < share * np.sum(values**2)
    error = relative_error(chosen.weight, chosen.approximation(how))
    assert error**2 <= sides * (1 - share) + 1e-9


@pytest.mark.parametrize(
    ("path", "method"),
    [("1.0.conv.0", "tucker"), ("1.0.conv.0", "cp"), ("1.0.conv.3", "svd"), ("6.0.conv.0", "svd")],
)
def test_every_candidate_costs_less_than_the_one_before(path, method):
    layer, choices = LAYERS[path], candidate_ranks(a_layer(path, method))
    macs = [layer.macs, *(layer.macs_with(how) for how in choices)]
    assert len(choices) > 1
    assert all(after < before for before, after in pairwise(macs))
