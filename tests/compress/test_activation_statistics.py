"""Factorizing for the inputs that come: exact at full rank, and best for the outputs below it."""

import numpy as np
import pytest
import torch
from small import CLASSES, SPEC
from torch import nn

from weighin.compress.context import RIDGE, Probe, along_inputs, input_statistics, statistics_of
from weighin.compress.factorize import (
    factorizable,
    factors,
    find_layers,
    largest_ranks,
    product,
    spectra,
)
from weighin.images import normalize
from weighin.network.build import Factorization

LAYERS = {layer.path: layer for layer in find_layers(SPEC, len(CLASSES))}


def moment(inputs: int, seed: int = 0) -> np.ndarray:
    """The second moment of inputs whose directions differ a hundredfold in strength."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((500, inputs)) * np.geomspace(1, 0.01, inputs)
    return x.T @ x


@pytest.mark.parametrize(
    ("path", "method"), [("1.0.conv.3", "svd"), ("1.0.conv.0", "tucker"), ("1.0.conv.0", "spatial")]
)
def test_full_rank_is_the_same_weight(path, method):
    shape = LAYERS[path].weight_shape
    weight = np.random.default_rng(0).standard_normal(shape)
    known = factorizable(LAYERS[path], method, weight, statistics_of(moment(shape[1])))
    full = Factorization(method, largest_ranks(weight, method))
    np.testing.assert_allclose(known.approximation(full), weight, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_svd_loses_the_least_of_the_outputs(rank):
    """What the outputs lose is what the cut values hold: no weight of that rank loses less."""
    weight = np.random.default_rng(0).standard_normal((16, 32, 1, 1))
    metric = statistics_of(moment(32))
    known, how = (
        factorizable(LAYERS["1.0.conv.3"], "svd", weight, metric),
        Factorization("svd", (rank,)),
    )
    (values,) = known.spectra

    def lost(approximation: np.ndarray) -> float:
        return float(np.linalg.norm(along_inputs(weight - approximation, metric.root)))

    assert lost(known.approximation(how)) == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-9)
    assert lost(product(factors(weight, how), "svd")) > 1.05 * lost(known.approximation(how))


def test_energy_is_that_of_the_outputs():
    weight, metric = np.random.default_rng(0).standard_normal((16, 32)), statistics_of(moment(32))
    known = factorizable(LAYERS["1.0.conv.3"], "svd", weight[:, :, None, None], metric)
    total = np.trace(weight @ metric.root @ metric.root @ weight.T)
    assert np.sum(known.spectra[0] ** 2) == pytest.approx(total, rel=1e-10)
    assert np.sum(spectra(weight, "svd")[0] ** 2) != pytest.approx(total, rel=0.01)


def test_a_metric_is_the_root_of_the_moment():
    found = statistics_of(moment(8))
    scaled = moment(8) / np.trace(moment(8)) * 8
    np.testing.assert_allclose(found.root @ found.root, scaled + RIDGE * np.eye(8), atol=1e-12)
    np.testing.assert_allclose(found.root @ found.inverse, np.eye(8), atol=1e-9)
    silent = statistics_of(np.zeros((3, 3)))
    np.testing.assert_allclose(silent.root, np.sqrt(RIDGE) * np.eye(3))


def test_moments_are_those_of_what_comes_in(packed, network):
    probe = Probe(packed, network, 1)
    paths = ["0.0.conv.0", "1.0.conv.3", "6.0.conv.0"]
    metrics = input_statistics(probe.module, probe.sample, paths)
    assert list(metrics) == paths
    images = torch.from_numpy(normalize(probe.sample)).double()
    pixels = images.movedim(1, -1).flatten(0, -2)
    wanted = statistics_of((pixels.T @ pixels).numpy())
    np.testing.assert_allclose(metrics["0.0.conv.0"].root, wanted.root, rtol=1e-9)
    features = nn.Sequential(*network.module(3)[:6])
    with torch.no_grad():
        x = features(torch.from_numpy(normalize(probe.sample))).double()
    wanted = statistics_of((x.T @ x).numpy())
    np.testing.assert_allclose(metrics["6.0.conv.0"].root, wanted.root, rtol=1e-3, atol=1e-4)
    assert not probe.module[0][0].conv[0]._forward_pre_hooks  # nothing is left behind
