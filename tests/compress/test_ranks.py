"""Ranks: what a share, an energy and a budget mean, and that no choice costs a MAC more."""

from itertools import pairwise

import numpy as np
import pytest
from small import CLASSES, ROWS, SPEC, untrained

from weighin.compress.algebra import relative_error
from weighin.compress.ladder import by_energy, by_ratio, candidate, ladder
from weighin.compress.memo import Memo
from weighin.compress.sensitivity import Rung, cheapest_damage, hull
from weighin.compress.sites import find_sites
from weighin.network.cost import folded_macs
from weighin.network.factorized import Factorization
from weighin.network.spec import NetworkSpec

SITES = {site.path: site for site in find_sites(SPEC, len(CLASSES))}
WEIGHTS = untrained().weights


def a_candidate(path: str, method: str):
    weight = WEIGHTS[f"{path}.weight"].astype(np.float64)
    return candidate(SITES[path], method, weight)


def test_sites_are_all_layers_and_add_up_to_the_folded_network():
    paths = ["0.0.conv.0", "1.0.conv.0", "1.0.conv.3", "2.0.conv.5.gate.0", "6.0.conv.0"]
    assert [path for path in SITES if path in paths] == paths
    assert sum(site.macs for site in SITES.values()) == folded_macs(SPEC, len(CLASSES))
    assert SITES["1.0.conv.0"].weight_shape == (32, 16, 3, 3)
    assert SITES["1.0.conv.0"].shape == (16, 8, 8)


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
    site, classes = SITES[path], len(CLASSES)
    whole = folded_macs(SPEC, classes, {path: how}) - folded_macs(SPEC, classes)
    assert site.macs_with(how) - site.macs == whole


def test_methods_go_by_the_kind_of_layer():
    methods = {path: site.method("cp") for path, site in SITES.items()}
    assert methods["0.0.conv.0"] == "cp"
    assert methods["1.0.conv.3"] == methods["6.0.conv.0"] == "svd"
    assert methods["2.0.conv.3"] is None  # depthwise


def test_ratio_is_a_share_of_each_sides_full_rank():
    assert by_ratio(a_candidate("1.0.conv.0", "tucker"), 0.25).ranks == (4, 8)
    assert by_ratio(a_candidate("1.0.conv.0", "cp"), 0.25).ranks == (8,)
    assert by_ratio(a_candidate("1.0.conv.0", "spatial"), 0.25).ranks == (12,)
    assert by_ratio(a_candidate("1.0.conv.3", "svd"), 0.25).ranks == (4,)


def test_what_does_not_lower_the_macs_is_refused():
    """The seed's fixed 0.4 raised the MACs of pointwise layers with C_out >= 2 C_in."""
    rows = [[1, "Conv", [8, 1]], [1, "Conv", [48, 1]], *ROWS[4:]]
    spec = NetworkSpec.from_dict({"input": [8, 8], "width": 1.0, "rows": rows})
    site = next(s for s in find_sites(spec, 3) if s.path == "1.0.conv.0")
    wide = candidate(site, "svd", np.random.default_rng(0).standard_normal((48, 8, 1, 1)))
    assert site.macs == 64 * (48 * 8 + 48)
    assert site.macs_with(Factorization("svd", (6,))) == 64 * (6 * 8 + 48 * 6 + 48)
    assert by_ratio(wide, 6 / 8).ranks == (6,)
    assert by_ratio(wide, 7 / 8) is None  # 7 * 56 > 384
    assert by_energy(wide, 1.0) is None


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    ("path", "method", "sides"),
    [("1.0.conv.0", "tucker", 2), ("1.0.conv.0", "spatial", 1), ("1.0.conv.3", "svd", 1)],
)
def test_energy_is_the_kept_share_of_the_squared_values(path, method, sides, share):
    chosen = a_candidate(path, method)
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
def test_every_rung_costs_less_than_the_one_before(path, method):
    site, rungs = SITES[path], ladder(a_candidate(path, method))
    macs = [site.macs, *(site.macs_with(how) for how in rungs)]
    assert len(rungs) > 1
    assert all(after < before for before, after in pairwise(macs))


def test_hull_keeps_what_some_price_would_choose():
    points = [(10, 5.0), (20, 1.0), (30, 4.0), (40, 4.0), (50, 9.0)]
    kept = hull([Rung(saved, damage) for saved, damage in points])
    assert [(rung.saved, rung.damage) for rung in kept] == [(0, 0), (20, 1.0), (40, 4.0), (50, 9.0)]


class Counting:
    """A probe whose divergence is the squared relative error, and which counts its calls."""

    def __init__(self, candidates) -> None:
        self.weights = {c.site.path: c.weight for c in candidates}
        self.calls = 0

    def divergence(self, changes):
        self.calls += 1
        return sum(relative_error(self.weights[k], dense) ** 2 for k, dense in changes.items())


def test_a_budget_is_met_where_the_damage_is_least(tmp_path):
    """A layer of rank 2 loses nothing down to rank 2, so it is cut to that first."""
    site = SITES["1.0.conv.3"]
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 2)) @ rng.standard_normal((2, 32))
    low = candidate(site, "svd", weight[:, :, None, None])
    candidates = [a_candidate("1.0.conv.0", "tucker"), low]
    probe, memo = Counting(candidates), Memo(tmp_path / "memo.json")
    saving = site.macs - site.macs_with(Factorization("svd", (2,)))
    chosen = cheapest_damage(candidates, probe, saving, memo)
    assert chosen == {"1.0.conv.3": Factorization("svd", (2,))}
    calls = probe.calls
    more = cheapest_damage(candidates, probe, saving + 1, memo)
    assert set(more) == {"1.0.conv.0", "1.0.conv.3"}
    assert cheapest_damage(candidates, probe, 10**9, memo).keys() == more.keys()
    assert cheapest_damage(candidates, probe, 0, memo) == {}
    assert probe.calls == calls  # everything else came from the memo


def test_a_torn_memo_is_forgotten(tmp_path):
    path = tmp_path / "memo.json"
    assert Memo(path)("a", lambda: [1.5]) == [1.5]
    assert Memo(path)("a", lambda: [2.5]) == [1.5]
    path.write_bytes(path.read_bytes()[:9])
    assert Memo(path)("a", lambda: [2.5]) == [2.5]
    path.write_bytes(b"\xff\x00")
    assert Memo(path)("a", lambda: [3.5]) == [3.5]
