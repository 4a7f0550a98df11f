"""The equations: exact at full rank, bounded below it, in one order with one sign."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from weighin.compress.factorize import (
    canonical,
    factorize_layer,
    factors,
    largest_ranks,
    product,
    relative_error,
    spectra,
    weight_of,
)
from weighin.determinism import PINS
from weighin.errors import NetworkError
from weighin.network.build import Factorization

STRIDED = {"stride": (2, 1), "padding": (2, 1), "dilation": (2, 1), "bias": True}
FULL = [
    (nn.Conv2d(8, 12, 1, stride=2, padding=1, bias=True), "svd"),
    (nn.Conv2d(12, 5, 1, bias=False), "svd"),
    (nn.Linear(9, 7), "svd"),
    (nn.Linear(7, 9, bias=False), "svd"),
    (nn.Conv2d(8, 12, 3, **STRIDED), "tucker"),
    (nn.Conv2d(3, 64, 3), "tucker"),
    (nn.Conv2d(64, 2, (1, 3)), "tucker"),
    (nn.Conv2d(8, 12, (3, 5), **STRIDED), "spatial"),
    (nn.Conv2d(2, 30, (5, 3), bias=False), "spatial"),
]


def fill(layer: nn.Module, seed: int = 0) -> nn.Module:
    rng = np.random.default_rng(seed)
    for parameter in layer.parameters():
        parameter.data = torch.from_numpy(rng.standard_normal(parameter.shape).astype("float32"))
    return layer


def outputs(layer: nn.Module, *modules: nn.Module) -> list[torch.Tensor]:
    """Return what each module gives, in double precision, for an input that `layer` takes."""
    shape = (2, layer.weight.shape[1], 11, 10)[: layer.weight.ndim]
    x = torch.from_numpy(np.random.default_rng(1).standard_normal(shape))
    return [copy.deepcopy(module).double()(x) for module in modules]


@pytest.mark.parametrize(("layer", "method"), FULL)
def test_full_rank_is_the_dense_layer(layer, method):
    weight = weight_of(fill(layer))
    how = Factorization(method, largest_ranks(weight, method))
    dense, pieces = outputs(layer, layer, factorize_layer(layer, how))
    torch.testing.assert_close(pieces, dense, rtol=0, atol=2e-5)
    assert relative_error(weight, product(factors(weight, how), method)) < 1e-14


@pytest.mark.parametrize(("layer", "method"), FULL)
def test_the_pieces_compute_the_dense_product(layer, method):
    """What Probe measures is what the factorized network does, bias, stride and all."""
    how = Factorization(method, (2, 2) if method == "tucker" else (2,))
    approximate = copy.deepcopy(fill(layer))
    approximate.weight.data = torch.from_numpy(product(factors(weight_of(layer), how), method))
    dense, small, exact = outputs(layer, approximate, factorize_layer(layer, how), layer)
    torch.testing.assert_close(small, dense, rtol=0, atol=2e-5)
    assert not torch.allclose(small, exact, atol=1e-2)


def test_cp_finds_the_terms_that_a_weight_is_made_of():
    rng = np.random.default_rng(0)
    modes = [rng.standard_normal((side, 3)) for side in (8, 7, 3, 5)]
    weight = np.einsum("or,ir,hr,wr->oihw", *modes)
    how = Factorization("cp", (3,))
    assert relative_error(weight, product(factors(weight, how), "cp")) < 1e-6
    layer = nn.Conv2d(7, 8, (3, 5), **STRIDED)
    layer.weight.data = torch.from_numpy(weight.astype("float32"))
    x = torch.from_numpy(rng.standard_normal((2, 7, 11, 10)).astype("float32"))
    torch.testing.assert_close(factorize_layer(layer, how)(x), layer(x), rtol=0, atol=1e-4)


def test_cp_errors_fall_with_the_rank():
    weight = np.random.default_rng(0).standard_normal((6, 5, 3, 3))
    errors = [
        relative_error(weight, product(factors(weight, Factorization("cp", (rank,))), "cp"))
        for rank in (1, 4, 12, 30)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 < errors[1]


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize(("shape", "method"), [((6, 9, 1, 1), "svd"), ((6, 9, 3, 5), "spatial")])
def test_svd_error_is_that_of_the_cut_values(shape, method, rank):
    weight = np.random.default_rng(0).standard_normal(shape)
    (values,) = spectra(weight, method)
    error = np.linalg.norm(
        weight - product(factors(weight, Factorization(method, (rank,))), method)
    )
    assert error == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-10)


@pytest.mark.parametrize("ranks", [(1, 1), (2, 5), (7, 3), (9, 6)])
def test_tucker_error_is_within_the_hosvd_bound(ranks):
    weight = np.random.default_rng(0).standard_normal((6, 9, 3, 3))
    inputs, outputs = spectra(weight, "tucker")
    cut = np.sum(inputs[ranks[0] :] ** 2) + np.sum(outputs[ranks[1] :] ** 2)
    how = Factorization("tucker", ranks)
    error = np.linalg.norm(weight - product(factors(weight, how), "tucker"))
    assert error**2 <= cut + 1e-12
    # and no approximation of these ranks beats one mode's own cut
    assert (
        error**2 >= max(np.sum(inputs[ranks[0] :] ** 2), np.sum(outputs[ranks[1] :] ** 2)) - 1e-12
    )


def test_order_and_signs_are_canonical():
    weight = np.random.default_rng(0).standard_normal((6, 9, 3, 3))
    for method, ranks in (("tucker", (4, 4)), ("spatial", (4,)), ("cp", (4,))):
        pieces = factors(weight, Factorization(method, ranks))
        norms = [np.linalg.norm(row) for row in pieces[1 if method == "tucker" else 0]]
        if method != "tucker":
            assert norms == sorted(norms, reverse=True)
    left = factors(weight[:, :, :1, :1], Factorization("svd", (4,)))[1][:, :, 0, 0]
    assert (left[np.abs(left).argmax(0), range(4)] > 0).all()


def test_canonical_forgets_signs_scales_and_order():
    rng = np.random.default_rng(0)
    modes = [rng.standard_normal((side, 4)) for side in (6, 5, 3, 3)]
    order, sign = [2, 0, 3, 1], np.array([1, -1, -1, 1])
    other = [modes[0] * sign, modes[1] * sign * 4, modes[2] * 0.5, modes[3] * 0.5]
    for one, two in zip(canonical(modes), canonical([m[:, order] for m in other]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)
    for mode in canonical(modes)[1:]:
        assert (mode[np.abs(mode).argmax(0), range(4)] > 0).all()


def test_ranks_over_the_exact_ones_are_refused():
    with pytest.raises(NetworkError) as error:
        factorize_layer(nn.Conv2d(8, 4, 1), Factorization("svd", (5,)), "3.0.conv.0")
    assert error.value.problem == "3.0.conv.0: svd ranks [5] are over [4], which is exact"


def test_depthwise_is_refused_by_name():
    with pytest.raises(
        NetworkError, match=r"^3\.0\.conv\.3 cannot be factorized by tucker: it has 8"
    ):
        factorize_layer(nn.Conv2d(8, 8, 3, groups=8), Factorization("tucker", (2, 2)), "3.0.conv.3")


SCRIPT = """
import hashlib, sys
import numpy as np
from weighin.compress.factorize import factors
from weighin.network.build import Factorization
weight = np.random.default_rng(int(sys.argv[1])).standard_normal((12, 10, 3, 3))
digest = hashlib.sha256()
for method, ranks in (("tucker", (4, 5)), ("cp", (14,)), ("spatial", (6,))):
    for piece in factors(weight, Factorization(method, ranks)):
        digest.update(piece.astype("float32").tobytes())
print(digest.hexdigest())
"""


def test_another_process_finds_the_same_bytes():
    def run(seed: int, **changes: str) -> str:
        environment = {**os.environ, **PINS, **changes}
        command = [sys.executable, "-c", SCRIPT, str(seed)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    first = run(0, PYTHONHASHSEED="1")
    assert run(0, PYTHONHASHSEED="2", TZ="Asia/Tokyo") == first
    assert run(1) != first


def test_a_weight_of_zeros_has_factors_of_zeros():
    zeros = np.zeros((6, 5, 3, 3))
    for method, ranks in (("cp", (4,)), ("cp", (1,)), ("tucker", (2, 3)), ("spatial", (4,))):
        pieces = factors(zeros, Factorization(method, ranks))
        assert not product(pieces, method).any()
        assert all(np.isfinite(piece).all() for piece in pieces)
    assert not any(piece.any() for piece in factors(zeros, Factorization("cp", (4,))))


RNG = np.random.default_rng(3)
DENSE = RNG.standard_normal((6, 5, 3, 3))
RANK_ONE = np.einsum("o,i,h,w->oihw", *(RNG.standard_normal(side) for side in (6, 5, 3, 3)))
ODD = {
    "tiny": DENSE * 1e-30,
    "denormal": (DENSE * 1e-40).astype("float32").astype("float64"),
    "large": DENSE * 1e15,
    "equal": np.full((6, 5, 3, 3), 0.1),
    "one live channel": np.where(np.arange(6)[:, None, None, None] == 2, DENSE, 0.0),
    "rank one": RANK_ONE,
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_weights_are_factorized_at_any_scale(odd):
    """The error is that of the same weight at the scale of 1, and none at the full rank."""
    weight = ODD[odd]
    scaled = weight / np.linalg.norm(weight)
    for method, ranks in (("cp", (1,)), ("cp", (20,)), ("tucker", (2, 2)), ("spatial", (2,))):
        how = Factorization(method, ranks)
        error = relative_error(weight, product(factors(weight, how), method))
        assert error == pytest.approx(
            relative_error(scaled, product(factors(scaled, how), method)), abs=1e-3
        )
        exact = Factorization(method, largest_ranks(weight, method))
        if method != "cp":
            assert relative_error(weight, product(factors(weight, exact), method)) < 1e-12
    if odd in ("rank one", "equal"):
        assert (
            relative_error(weight, product(factors(weight, Factorization("cp", (1,))), "cp")) < 1e-6
        )
