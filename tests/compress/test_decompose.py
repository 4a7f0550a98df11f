"""The decompose stage on a small trained network: fewer MACs, the same network, its files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CLASSES, RECIPE, SPEC, make_params

from weighin.compress.context import CompressionContext, Probe, read_network, read_ranks
from weighin.compress.decompose import decompose
from weighin.compress.factorize import factorize_network
from weighin.data.pack import read_packed
from weighin.errors import NetworkError
from weighin.files import canonical_json
from weighin.grading.risk import expected_score
from weighin.grading.score import ConfusionMatrix, Metrics, confusion_of_indices, score
from weighin.images import normalize
from weighin.network.build import Factorization, ranks_from_dict, ranks_to_dict
from weighin.network.cost import cost, folded_macs
from weighin.report.inputs import LAYERS
from weighin.training.weights import Trained

FILES = ("layers.json", "network.yaml", "ranks.yaml", "weights.safetensors")


DEAR = 200_000  # MACs that cost a point


def run(packed, network, out, scratch, price=13_865_375, **knobs):
    params = make_params(decompose=knobs, contest={"reference_macs": price})
    decompose(CompressionContext(packed, network, RECIPE, params, scratch), out)
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("method", ["tucker", "cp", "spatial"])
@pytest.mark.parametrize("ranks", ["ratio", "energy"])
def test_every_factorized_layer_costs_less(packed, network, tmp_path, method, ranks):
    run(packed, network, tmp_path / "out", tmp_path / "scratch", method=method, ranks=ranks)
    small = read_network(tmp_path / "out")
    layers = LAYERS.validate_python(json.loads((tmp_path / "out/layers.json").read_text()))
    before, after = (
        sum(getattr(row, name) for row in layers) for name in ("macs_before", "macs_after")
    )
    assert before == folded_macs(SPEC, len(CLASSES))
    assert after == folded_macs(SPEC, len(CLASSES), small.ranks) < before
    changed = [row for row in layers if row.method]
    assert {row.path for row in changed} == set(small.ranks)
    assert all(row.macs_after < row.macs_before for row in changed)
    assert all(0 < row.error < 1 for row in changed)
    assert {row.method for row in changed} == {method, "svd"}
    assert all(row.macs_after == row.macs_before for row in layers if not row.method)


def test_the_table_tells_what_each_layer_alone_costs(packed, network, tmp_path):
    run(packed, network, tmp_path / "out", tmp_path / "scratch", ratio=0.1)
    layers = LAYERS.validate_python(json.loads((tmp_path / "out/layers.json").read_text()))
    small, probe = read_network(tmp_path / "out"), Probe(packed, network, 1)
    row = max((row for row in layers if row.method), key=lambda row: row.sensitivity)
    mine = {k: v for k, v in small.weights.items() if k.startswith(f"{row.path}.")}
    others = {k: v for k, v in network.weights.items() if not k.startswith(f"{row.path}.")}
    alone = Trained(SPEC, others | mine, {row.path: small.ranks[row.path]})
    held = read_packed(packed, "validation", SPEC.input)
    with torch.no_grad():
        logits = alone.module(len(CLASSES))(torch.from_numpy(normalize(held.images)))
    f1 = confusion_of_indices(held.labels, logits.argmax(1).numpy(), CLASSES).f1
    assert row.sensitivity == pytest.approx(probe.confusion().f1 - f1, abs=1e-6)
    assert row.sensitivity > 0


def test_sensitivity_meets_the_budget_and_resumes(packed, network, tmp_path, capsys):
    knobs = {"ranks": "sensitivity", "budget": 0.6}
    whole = run(packed, network, tmp_path / "one", tmp_path / "a", **knobs)
    ranks = read_ranks(tmp_path / "one/ranks.yaml")
    assert folded_macs(SPEC, 3, ranks) <= 0.6 * folded_macs(SPEC, 3)
    # a run that was killed half-way, its last write torn
    memo = json.loads((tmp_path / "a/sensitivity.json").read_text())
    (tmp_path / "b").mkdir()
    half = dict(list(memo.items())[: len(memo) // 2])
    (tmp_path / "b/sensitivity.json").write_text(json.dumps(half))
    (tmp_path / "b/.sensitivity.json.x1").write_text("{")
    assert run(packed, network, tmp_path / "two", tmp_path / "b", **knobs) == whole
    other = run(
        packed, network, tmp_path / "three", tmp_path / "a", ranks="sensitivity", budget=0.8
    )
    assert other["ranks.yaml"] != whole["ranks.yaml"]
    assert "decompose.budget is" not in capsys.readouterr().err
    run(packed, network, tmp_path / "four", tmp_path / "a", ranks="sensitivity", budget=0.05)
    least = folded_macs(SPEC, 3, read_ranks(tmp_path / "four/ranks.yaml")) / folded_macs(SPEC, 3)
    told = f"decompose.budget is 0.05, but factorizing leaves {least:.3f} of the MACs at least"
    assert told in capsys.readouterr().err


def test_a_network_is_rebuilt_from_its_files_alone(packed, network, tmp_path):
    run(packed, network, tmp_path, tmp_path / "scratch", ranks="energy", energy=1.0)
    small = read_network(tmp_path)
    assert small.spec == SPEC
    x = torch.from_numpy(normalize(read_packed(packed, "validation", SPEC.input).images))
    with torch.no_grad():
        got, wanted = small.module(3)(x), network.module(3)(x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_factorized_exactly_it_is_the_same_network(packed, network):
    full = {
        "0.0.conv.0": Factorization("tucker", (3, 16)),
        "1.0.conv.0": Factorization("spatial", (48,)),
        "1.0.conv.3": Factorization("svd", (16,)),
        "6.0.conv.0": Factorization("svd", (3,)),
    }
    same = factorize_network(network, full, 3)
    x = torch.from_numpy(normalize(read_packed(packed, "validation", SPEC.input).images))
    with torch.no_grad():
        torch.testing.assert_close(same.module(3)(x), network.module(3)(x), rtol=1e-4, atol=1e-4)
    untouched = set(same.weights) & set(network.weights)
    assert "2.0.conv.3.weight" in untouched
    assert all(np.array_equal(same.weights[name], network.weights[name]) for name in untouched)


def test_switched_off_it_passes_the_network_on(packed, network, tmp_path):
    run(packed, network, tmp_path, tmp_path / "scratch", enabled=False)
    passed = read_network(tmp_path)
    assert (passed.spec, passed.ranks) == (SPEC, {})
    assert (tmp_path / "ranks.yaml").read_text() == "{}\n"
    assert passed.weights.keys() == network.weights.keys()
    assert all(np.array_equal(passed.weights[k], network.weights[k]) for k in passed.weights)
    layers = LAYERS.validate_python(json.loads((tmp_path / "layers.json").read_text()))
    assert all(row.method is None for row in layers)
    assert sum(row.macs_after for row in layers) == folded_macs(SPEC, 3)


def test_weights_of_another_network_are_refused(packed, network, tmp_path):
    weights = {k: v for k, v in network.weights.items() if k != "6.0.conv.0.bias"}
    with pytest.raises(NetworkError) as error:
        run(packed, replace(network, weights=weights), tmp_path / "out", tmp_path / "scratch")
    assert error.value.problem == "weights and network differ: 6.0.conv.0.bias is in one only"
    assert not (tmp_path / "out").exists()


def test_edited_ranks_that_do_not_fit_are_named(network, tmp_path):
    path = tmp_path / "ranks.yaml"
    path.write_text("1.0.conv.0: {method: tucker, ranks: [99, 4]}\n")
    with pytest.raises(NetworkError) as error:
        Trained(SPEC, network.weights, read_ranks(path)).module(3)
    assert error.value.problem == (
        "1.0.conv.0 cannot be factorized by tucker: its ranks [99, 4] exceed its channels [16, 32]"
    )
    path.write_text("1.0.conv.0: [")
    with pytest.raises(NetworkError, match=r"ranks\.yaml is not YAML"):
        read_ranks(path)


def test_divergence_is_zero_for_no_change_and_the_kl_for_one(packed, network):
    probe = Probe(packed, network, 1)
    assert probe.divergence({}) == 0
    path = "6.0.conv.0"
    weight = network.weights[f"{path}.weight"].astype(np.float64)
    assert probe.divergence({path: weight}) == 0
    changed = probe.divergence({path: weight * 0.5})
    x = torch.from_numpy(normalize(probe.sample))
    with torch.no_grad():
        own = network.module(3)(x).double()
        bias = torch.from_numpy(network.weights[f"{path}.bias"]).double()
    halved = (own - bias) * 0.5 + bias
    kl = torch.nn.functional.kl_div(
        halved.log_softmax(1), own.log_softmax(1), reduction="batchmean", log_target=True
    )
    assert changed == pytest.approx(float(kl), rel=1e-4)
    assert probe.divergence({}) == 0  # the network is as it was


def test_search_takes_the_lowest_score_and_resumes(packed, network, tmp_path):
    knobs = {"ranks": "search", "trials": 7}
    whole = run(packed, network, tmp_path / "one", tmp_path / "a", DEAR, **knobs)
    memo = json.loads((tmp_path / "a/ranks.json").read_text())
    assert 4 <= len(memo) <= 7
    scores = {}
    params = make_params(contest={"reference_macs": DEAR})
    context = CompressionContext(packed, network, RECIPE, params, tmp_path)
    for name, counts in memo.items():
        ranks = ranks_from_dict(json.loads(name))
        found = ConfusionMatrix(CLASSES, np.array(counts))
        scores[name] = context.score(replace(network, ranks=ranks), found)
    chosen = read_ranks(tmp_path / "one/ranks.yaml")
    assert scores[canonical_json(ranks_to_dict(chosen))] == min(scores.values())
    assert "{}\n" in scores and chosen  # the network as it is was tried, and something beat it
    (tmp_path / "b").mkdir()
    half = dict(list(memo.items())[: len(memo) // 2])
    (tmp_path / "b/ranks.json").write_text(json.dumps(half))
    assert run(packed, network, tmp_path / "two", tmp_path / "b", DEAR, **knobs) == whole


def test_evbmf_is_a_rule_like_the_others(packed, network, tmp_path):
    run(packed, network, tmp_path / "out", tmp_path / "scratch", ranks="evbmf")
    ranks = read_ranks(tmp_path / "out/ranks.yaml")
    assert folded_macs(SPEC, 3, ranks) <= folded_macs(SPEC, 3)


def test_rows_before_a_change_are_not_run_again(packed, network, monkeypatch):
    quick = Probe(packed, network, 1)
    assert list(quick.entering) == [*range(8)]
    monkeypatch.setattr("weighin.compress.context.KEPT", 0)
    whole = Probe(packed, network, 1)
    paths = ("6.0.conv.0", "0.0.conv.0", "3.0.conv.0", "2.1.conv.7")
    changes = {path: network.weights[f"{path}.weight"].astype(np.float64) * 0.7 for path in paths}
    for path in paths:
        alone = {path: changes[path]}
        assert quick.divergence(alone) == whole.divergence(alone) > 0
    assert quick.divergence(changes) == whole.divergence(changes)
    assert list(whole.entering) == [0]


@pytest.mark.parametrize("ranks", ["ratio", "energy", "evbmf", "sensitivity"])
def test_cp_of_layers_that_training_drove_to_zero(packed, network, tmp_path, ranks):
    weights = {
        name: np.zeros_like(array) if array.ndim == 4 and array.shape[2] > 1 else array
        for name, array in network.weights.items()
    }
    dead = replace(network, weights=weights)
    knobs = {"ranks": ranks, "method": "cp", "budget": 0.3, "energy": 1.0}
    run(packed, dead, tmp_path / "out", tmp_path / "scratch", **knobs)
    small = read_network(tmp_path / "out")
    assert folded_macs(SPEC, 3, small.ranks) < folded_macs(SPEC, 3)
    cut = [path for path, how in small.ranks.items() if how.method == "cp"]
    assert cut or ranks == "evbmf"  # which leaves a layer in which nothing stands out
    for path in cut:
        pieces = [array for name, array in small.weights.items() if name.startswith(f"{path}.")]
        assert len(pieces) == 4 and not any(array.any() for array in pieces)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(packed, network, tmp_path, bad):
    name = "2.0.conv.4.weight"  # of a norm: no factorization would look at it
    weights = {**network.weights, name: np.full_like(network.weights[name], bad)}
    with pytest.raises(NetworkError) as error:
        run(packed, replace(network, weights=weights), tmp_path / "out", tmp_path / "scratch")
    assert error.value.problem == f"{name} holds numbers that are not finite"
    assert "recipe.lr" in error.value.fix


def test_activations_that_overflow_name_their_layer(packed, network, tmp_path):
    name = "1.0.conv.0.weight"
    large = {k: v * np.float32(1e30) if v.ndim == 4 else v for k, v in network.weights.items()}
    assert np.isfinite(large[name]).all()
    weights = {k: v * 1e20 if k.endswith("1.weight") else v for k, v in large.items()}
    with pytest.raises(NetworkError) as error:
        run(packed, replace(network, weights=weights), tmp_path / "out", tmp_path / "scratch")
    assert "1.0.conv" in error.value.problem and "not finite" in error.value.problem
    assert "recipe.lr" in error.value.fix


def test_the_score_is_the_expected_one(packed, network, tmp_path):
    """A network that is just over the floor on these images is under it on half of the others."""
    contest = {"score": "micronet", "floor_f1": 0.6}
    params = make_params(contest=contest)
    context = CompressionContext(packed, network, RECIPE, params, tmp_path)
    found = ConfusionMatrix(CLASSES, np.array([[10, 4, 1], [6, 22, 2], [3, 4, 8]]))
    assert 0.6 < found.f1 < 0.67
    needs = cost(SPEC, 3)
    metrics = Metrics.of(found.f1, found.accuracy, needs)
    expected = expected_score(params.contest, found, needs, params.seed)
    assert context.score(network, found) == expected.expected
    assert score(params.contest, metrics).value < 1
    assert context.score(network, found) == pytest.approx(1000 * expected.under_floor, abs=2)
    assert 100 < context.score(network, found) < 900
