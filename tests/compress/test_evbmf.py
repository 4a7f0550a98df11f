"""The variational rank: known ranks found in known noise, and nothing found in noise alone."""

import math

import numpy as np
import pytest
from small import CLASSES, SPEC

from weighin.compress.decompose import by_evbmf, evbmf_rank, noise_variance, threshold
from weighin.compress.factorize import factorizable, find_layers


def low_rank(rank: int, shape: tuple[int, int], noise: float, seed: int = 0) -> np.ndarray:
    """Return orthogonal terms of scale 1 to 2 sqrt(rows * columns), and Gaussian noise."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((shape[0], rank)))
    right, _ = np.linalg.qr(rng.standard_normal((shape[1], rank)))
    scale = np.linspace(2, 1, rank) * math.sqrt(shape[0] * shape[1])
    return (left * scale) @ right.T + noise * rng.standard_normal(shape)


def singular(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize("shape", [(40, 40), (40, 300), (300, 40), (64, 24)])
@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_a_known_rank_is_found_in_known_noise(shape, rank, noise):
    values = singular(low_rank(rank, shape, noise))
    assert evbmf_rank(values, shape) == rank
    small, large = sorted(shape)
    assert noise_variance(values, small, large) == pytest.approx(noise**2, rel=0.25)


@pytest.mark.parametrize("shape", [(40, 40), (30, 200)])
def test_noise_alone_has_no_rank(shape):
    for seed in range(5):
        noise = np.random.default_rng(seed).standard_normal(shape)
        assert evbmf_rank(singular(noise), shape) == 0


def test_an_exactly_low_rank_matrix_keeps_its_rank():
    assert evbmf_rank(singular(low_rank(4, (30, 50), 0)), (30, 50)) == 4
    single = low_rank(4, (30, 50), 0).astype(np.float32).astype(np.float64)
    assert evbmf_rank(singular(single), (30, 50)) == 4


def test_the_threshold_is_the_papers():
    """For a square matrix t is 2.5129; and a term is over the edge of noise's own spectrum."""
    root = 2.51286
    assert threshold(1.0) == pytest.approx((1 + root) * (1 + 1 / root), rel=1e-4)
    for alpha in (0.01, 0.1, 0.5, 1.0):
        assert threshold(alpha) > (1 + math.sqrt(alpha)) ** 2  # Marchenko and Pastur, 1967


def test_the_variance_is_where_the_free_energy_is_least():
    shape = (30, 60)
    values = singular(low_rank(3, shape, 0.2))
    found = noise_variance(values, *shape)
    assert all(
        energy(values, shape, found) <= energy(values, shape, found * f) for f in (0.97, 1.03)
    )


def energy(values: np.ndarray, shape: tuple[int, int], noise: float) -> float:
    """The free energy of one noise variance, written out term by term."""
    alpha, x, total = shape[0] / shape[1], threshold(shape[0] / shape[1]), 0.0
    for value in values:
        y = value**2 / (shape[1] * noise)
        total += y - math.log(y)
        if y > x:
            t = (y - 1 - alpha + math.sqrt((y - 1 - alpha) ** 2 - 4 * alpha)) / 2
            total += math.log(1 + t) + alpha * math.log(1 + t / alpha) - t
    return total


def test_a_layer_of_noise_is_left_and_one_of_structure_is_cut():
    site = next(s for s in find_layers(SPEC, len(CLASSES)) if s.path == "1.0.conv.0")
    rng = np.random.default_rng(0)
    assert by_evbmf(factorizable(site, "tucker", rng.standard_normal((32, 16, 3, 3)))) is None
    core = rng.standard_normal((5, 3, 3, 3))
    weight = np.einsum(
        "oq,qphw,ip->oihw", rng.standard_normal((32, 5)), core, rng.standard_normal((16, 3))
    )
    noisy = weight + 0.1 * rng.standard_normal(weight.shape)
    assert by_evbmf(factorizable(site, "tucker", noisy)).ranks == (3, 5)
    assert by_evbmf(factorizable(site, "cp", noisy)).ranks == (5,)
