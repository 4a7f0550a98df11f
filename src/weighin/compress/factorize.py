"""Factorized layers: the weights that fill the structures of network/build.py.

tensorly on NumPy, in float64. Shape letters: O outputs, I inputs, H and W the kernel's sides, R a
rank. Factors come in one order and with one sign, whatever the SVD returns: singular values fall,
and the largest entry of every left singular vector is positive.

Truncation is bounded: with s the singular values of the matrix or unfolding, the squared error is
the sum of the cut s^2 for svd and spatial (Eckart and Young, 1936), and at most those sums over
both unfoldings together for tucker (De Lathauwer et al., "A multilinear singular value
decomposition", 2000, property 10), which the orthogonal iteration then only lowers.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorly as tl
import torch
from tensorly.decomposition import parafac, partial_tucker
from tensorly.tenalg import svd_interface
from torch import nn

from weighin.errors import NetworkError
from weighin.network.build import Factorization, Method, Ranks, apply_ranks, factorized_structure
from weighin.training.weights import Trained, module_weights

Array = npt.NDArray[np.float64]
# pieces as in network/build.py; u, v, x, y are sides of 1, and so is c, a group's one channel
PRODUCTS: dict[Method, str] = {
    "svd": "rihw,oruv->oihw",
    "tucker": "riuv,srhw,osxy->oihw",
    "cp": "riuv,rchx,rcyw,oruv->oihw",
    "spatial": "rihu,orvw->oihw",
}
SWEEPS, TOLERANCE = 100, 1e-7  # of the alternating least squares of cp
RIDGE = 1e-14  # of its normal equations, far below float32: without it equal terms divide by 0


def factorize_network(
    trained: Trained,
    ranks: Ranks,
    classes: int,
    factors: Mapping[str, Sequence[Array]] | None = None,
) -> Trained:
    """Return a network with the layers that `ranks` names factorized.

    `factors` gives the weights of a layer's pieces; other layers get those of their own weights.

    Raises:
        NetworkError: there is no such layer, or it cannot be factorized so.
    """
    module, given = trained.module(classes), factors or {}
    apply_ranks(
        module, ranks, lambda layer, how, path: factorize_layer(layer, how, path, given.get(path))
    )
    return Trained(trained.spec, module_weights(module), ranks)


def follow_ranks(given: Trained, trained: Trained, classes: int) -> Trained:
    """Return `given`, or where its ranks were edited `trained` factorized by them.

    Weights that do not fit their ranks are no use; the trained network's rows, if they are the
    same, make new ones.

    Raises:
        NetworkError: rows, ranks and weights do not belong together.
    """
    try:
        given.module(classes)
    except NetworkError:
        if given.spec != trained.spec:
            raise
        return factorize_network(trained, given.ranks, classes)
    return given


def factorize_layer(
    layer: nn.Module,
    how: Factorization,
    path: str = "layer",
    weights: Sequence[Array] | None = None,
) -> nn.Sequential:
    """Return the pieces that stand for `layer`, filled; the last one has its bias.

    `weights` are the pieces' own; by default the `factors` of the layer's.

    Raises:
        NetworkError: as `factorized_structure`, or a rank is over what the weight can have.
    """
    pieces = factorized_structure(layer, how, path)
    weight = weight_of(layer)
    most = largest_ranks(weight, how.method)
    if any(rank > limit for rank, limit in zip(how.ranks, most, strict=True)):
        problem = f"{path}: {how.method} ranks {list(how.ranks)} are over {list(most)}"
        fix = "lower the rank in the ranks file, or run the decompose stage again"
        raise NetworkError(f"{problem}, which is exact", fix)
    given = factors(weight, how) if weights is None else weights
    with torch.no_grad():
        for piece, factor in zip(pieces, given, strict=True):
            piece.weight.copy_(torch.from_numpy(factor))  # type: ignore[operator]
        if isinstance(layer.bias, torch.Tensor):
            pieces[-1].bias.copy_(layer.bias)  # type: ignore[operator]
    return pieces


def weight_of(layer: nn.Module) -> Array:
    """Return a layer's weight (O, I, H, W), or (O, I) of a linear one."""
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight.detach().double().numpy()


def factors(weight: Array, how: Factorization) -> list[Array]:
    """Return the weights of the pieces, in their order and of their shapes."""
    if how.method == "tucker":
        return _tucker(weight, how.ranks)
    if how.method == "cp":
        return _cp(weight, how.ranks[0])
    return _spatial(weight, how.ranks[0]) if how.method == "spatial" else _svd(weight, how.ranks[0])


def product(pieces: list[Array], method: Method) -> Array:
    """Return the dense weight that factors stand for: `factors` backwards."""
    letters = "ri,or->oi" if pieces[0].ndim == 2 else PRODUCTS[method]
    dense: Array = np.einsum(letters, *pieces, optimize=True)
    return dense


def relative_error(weight: Array, approximation: Array) -> float:
    """Return ||W - A|| / ||W||, Frobenius; 0 for a weight of zeros."""
    norm = float(np.linalg.norm(weight))
    return float(np.linalg.norm(weight - approximation)) / norm if norm else 0.0


def largest_ranks(weight: Array, method: Method) -> tuple[int, ...]:
    """Return the ranks at which a method is exact for every weight of this shape."""
    outputs, inputs, *kernel = weight.shape
    if method == "svd":
        return (min(inputs, outputs),)
    height, width = kernel
    if method == "spatial":
        return (min(inputs * height, outputs * width),)
    area = height * width
    if method == "cp":
        return (min(inputs, outputs) * area,)
    return min(inputs, outputs * area), min(outputs, inputs * area)


def spectra(weight: Array, method: Method) -> list[Array]:
    """Return the falling singular values that each rank of a method cuts, of its `matrices`."""
    found = [np.linalg.svd(matrix, compute_uv=False) for matrix in matrices(weight, method)]
    return [np.asarray(values, np.float64) for values in found]


def matrices(weight: Array, method: Method) -> list[Array]:
    """Return what is cut: one matrix for svd and spatial, two unfoldings for tucker, I before O.

    A CP rank cuts no matrix: it gets tucker's two, whose ranks it can never be below.
    """
    if method == "svd":
        return [weight.reshape(weight.shape[:2])]
    if method == "spatial":
        return [_stacked(weight)]
    return [tl.unfold(weight, 1), tl.unfold(weight, 0)]


def _stacked(weight: Array) -> Array:
    """Return (I H, W O) of a weight (O, I, H, W)."""
    outputs, inputs, height, width = weight.shape
    return weight.transpose(1, 2, 3, 0).reshape(inputs * height, width * outputs)


def _halves(matrix: Array, rank: int) -> tuple[Array, Array]:
    """Return U sqrt(S) and sqrt(S) V of a truncated SVD: each half carries half the scale."""
    u, s, v = svd_interface(matrix, n_eigenvecs=rank)
    root = np.sqrt(s)
    return u * root, root[:, None] * v


def _svd(weight: Array, rank: int) -> list[Array]:
    outputs, inputs, *kernel = weight.shape
    left, right = _halves(weight.reshape(outputs, inputs), rank)
    return [right.reshape(rank, inputs, *kernel), left.reshape(outputs, rank, *kernel)]


def _spatial(weight: Array, rank: int) -> list[Array]:
    outputs, inputs, height, width = weight.shape
    left, right = _halves(_stacked(weight), rank)
    rows = left.T.reshape(rank, inputs, height, 1)
    return [rows, right.reshape(rank, 1, width, outputs).transpose(3, 0, 1, 2)]


def _tucker(weight: Array, ranks: tuple[int, ...]) -> list[Array]:
    """Tucker-2 by higher-order orthogonal iteration, started from the HOSVD."""
    inner, outer = ranks
    (core, (left, right)), _ = _quietly(partial_tucker, weight, (outer, inner), [0, 1])
    return [right.T[:, :, None, None], core, left[:, :, None, None]]


def _cp(weight: Array, rank: int) -> list[Array]:
    """CP by alternating least squares, started from the unfoldings' singular vectors."""
    modes, norm = [np.zeros((side, rank)) for side in weight.shape], np.linalg.norm(weight)
    if norm:
        _, modes = _quietly(parafac, weight / norm, rank, SWEEPS, tol=TOLERANCE, l2_reg=RIDGE)
        modes[0] = modes[0] * norm
    outputs, inputs, rows, columns = canonical(modes)
    return [
        inputs.T[:, :, None, None],
        rows.T[:, None, :, None],
        columns.T[:, None, None, :],
        outputs[:, :, None, None],
    ]


def _quietly(decompose: Any, *arguments: Any, **options: Any) -> Any:
    """Call tensorly, which warns where it rightly completes a basis, and of 0 / 0 for zeros."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", "Trying to compute SVD")
        return decompose(*arguments, random_state=0, **options)


def canonical(modes: list[Array]) -> list[Array]:
    """Return CP factors with the strongest term first, its scale shared evenly, its signs fixed.

    The largest entry of a term is positive in every mode but the first, which takes the sign.
    """
    norms = [np.linalg.norm(mode, axis=0) for mode in modes]
    strength = np.prod(norms, axis=0)
    share = strength ** (1 / len(modes))
    scales = [share / np.where(norm > 0, norm, 1) for norm in norms]
    even = [mode * scale for mode, scale in zip(modes, scales, strict=True)]
    signs = [_signs(mode) for mode in even[1:]]
    signs.insert(0, np.prod(signs, axis=0))
    order = np.argsort(-strength, kind="stable")
    return [(mode * sign)[:, order] for mode, sign in zip(even, signs, strict=True)]


def _signs(mode: Array) -> Array:
    largest = mode[np.abs(mode).argmax(axis=0), np.arange(mode.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)
