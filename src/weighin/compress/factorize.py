"""Factorized layers: which can be, at which candidate ranks, what each costs, and their weights.

The weights fill the structures of network/build.py: tensorly on NumPy, in float64. Shape letters: O
outputs, I inputs, H and W the kernel's sides, R a rank. Factors come in one order and with one
sign, whatever the SVD returns: singular values fall, and the largest entry of every left singular
vector is positive.

Truncation is bounded: with s the singular values of the matrix or unfolding, the squared error is
the sum of the cut s^2 for svd and spatial (Eckart and Young, 1936), and at most those sums over
both unfoldings together for tucker (De Lathauwer et al., "A multilinear singular value
decomposition", 2000, property 10), which the orthogonal iteration then only lowers.

Costs are those of the exported network: each convolution has the bias that its batch norm becomes.
A rule gives one rank for each side of a method that has a spectrum (`spectra`). CP has one rank for
both sides: the larger, which is the least that a CP of those multilinear ranks can have. A choice
counts only if the layer's exact MACs fall.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
import tensorly as tl
import torch
from tensorly.decomposition import parafac, partial_tucker
from tensorly.tenalg import svd_interface
from torch import nn

from weighin.compress.context import Array, InputStatistics, Probe, along_inputs, input_statistics
from weighin.errors import NetworkError
from weighin.images import Size
from weighin.network.build import (
    Factorization,
    Method,
    Ranks,
    apply_ranks,
    blank_image,
    evaluating,
    factorized_structure,
    structure,
    watching,
)
from weighin.network.cost import count_macs, fold_batch_norms
from weighin.network.spec import NetworkSpec
from weighin.training.weights import Trained, module_weights

# pieces as in network/build.py; u, v, x, y are sides of 1, and so is c, a group's one channel
PRODUCTS: dict[Method, str] = {
    "svd": "rihw,oruv->oihw",
    "tucker": "riuv,srhw,osxy->oihw",
    "cp": "riuv,rchx,rcyw,oruv->oihw",
    "spatial": "rihu,orvw->oihw",
}
SWEEPS, TOLERANCE = 100, 1e-7  # of the alternating least squares of cp
RIDGE = 1e-14  # of its normal equations, far below float32: without it equal terms divide by 0
SHARES = tuple(step / 16 for step in range(1, 16))
ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


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
        fix = "lower the rank in the ranks file"
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


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer of the folded network, on the meta device."""

    path: str
    module: nn.Module = field(repr=False)
    shape: tuple[int, ...]  # of its input, without the batch
    macs: int

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The weight's shape, (O, I, H, W) or (O, I)."""
        return tuple(cast(torch.Tensor, self.module.weight).shape)

    def method(self, wide: Method) -> Method | None:
        """Return how the layer can be factorized: svd if pointwise, `wide` if k x k, or None."""
        if isinstance(self.module, nn.Linear):
            return "svd"
        assert isinstance(self.module, nn.Conv2d)
        if self.module.groups != 1:
            return None
        return "svd" if self.module.kernel_size == (1, 1) else wide

    def macs_with(self, how: Factorization) -> int:
        """Return the MACs of the pieces that would stand for the layer."""
        return _macs_with(self, how)


@dataclass(frozen=True)
class FactorizableLayer:
    """A layer that a method fits, its weight, its inputs and the spectra that ranks cut."""

    layer: Layer
    method: Method
    weight: Array = field(repr=False)
    inputs: InputStatistics | None = field(repr=False)
    spectra: list[Array] = field(repr=False)

    @property
    def path(self) -> str:
        """The layer's name."""
        return self.layer.path

    def saving(self, how: Factorization) -> int:
        """Return the MACs that a factorization saves."""
        return self.layer.macs - self.layer.macs_with(how)

    def ranks(self, sides: list[int]) -> Factorization | None:
        """Return the factorization of these ranks a side, or None if the MACs do not fall."""
        if self.method == "tucker":  # neither rank over what the other one leaves
            area = self.weight.shape[2] * self.weight.shape[3]
            outer = min(sides[1], sides[0] * area)
            sides = [min(sides[0], outer * area), outer]
        how = Factorization(self.method, (max(sides),) if self.method == "cp" else tuple(sides))
        return how if self.saving(how) > 0 else None

    def factors(self, how: Factorization) -> list[Array]:
        """Return the pieces' weights; they lose least of the outputs where the inputs are known."""
        if self.inputs is None:
            return factors(self.weight, how)
        first, *others = factors(along_inputs(self.weight, self.inputs.root), how)
        return [along_inputs(first, self.inputs.inverse), *others]

    def approximation(self, how: Factorization) -> Array:
        """Return the dense weight that the layer would have."""
        return product(self.factors(how), how.method)


def find_layers(spec: NetworkSpec, classes: int) -> list[Layer]:
    """Return every convolution and linear layer of a network, in the order of their calls.

    Raises:
        NetworkError: the rows do not make a network.
    """
    module = fold_batch_norms(structure(spec, classes))
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str, layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        shapes[path] = tuple(x.shape[1:])

    parts = {k: v for k, v in module.named_modules() if isinstance(v, nn.Conv2d | nn.Linear)}
    with watching(parts, note), evaluating(module), torch.no_grad():
        module(blank_image(module, spec.input))
    return [
        Layer(path, parts[path], shape, _macs(parts[path], shape)) for path, shape in shapes.items()
    ]


def find_factorizable(layers: list[Layer], wide: Method, probe: Probe) -> list[FactorizableLayer]:
    """Return the layers that can be factorized, k x k ones by `wide`, with what they hold."""
    found = [(layer, method) for layer in layers if (method := layer.method(wide))]
    inputs = input_statistics(probe.module, probe.sample, [layer.path for layer, _ in found])
    weights = {path: weight_of(probe.module.get_submodule(path)) for path in inputs}
    return [
        factorizable(layer, method, weights[layer.path], inputs[layer.path])
        for layer, method in found
    ]


def factorizable(
    layer: Layer, method: Method, weight: Array, inputs: InputStatistics | None = None
) -> FactorizableLayer:
    """Return a layer with its spectra computed: of its weight times its inputs, if known."""
    seen = weight if inputs is None else along_inputs(weight, inputs.root)
    return FactorizableLayer(layer, method, weight, inputs, spectra(seen, method))


def by_ratio(layer: FactorizableLayer, ratio: float) -> Factorization | None:
    """Return ranks that are a share of each side's, at least 1; None if the MACs do not fall."""
    return layer.ranks([max(1, round(ratio * len(values))) for values in layer.spectra])


def by_energy(layer: FactorizableLayer, energy: float) -> Factorization | None:
    """Return the least ranks that keep this share of the squared singular values on each side.

    They add up to the mean square of the outputs where the inputs are known, else to the weight's;
    Tucker-2, which cuts two sides, keeps at least 2 * energy - 1 of it. None if the MACs do not
    fall.
    """

    def least(values: Array) -> int:
        kept = np.cumsum(values**2)
        # the last sum stands for all of it, so that an energy of 1 is every value but zeros
        return int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12))) + 1

    return layer.ranks([least(values) for values in layer.spectra])


def candidate_ranks(layer: FactorizableLayer) -> list[Factorization]:
    """Return the distinct choices from the dearest to the cheapest, each with fewer MACs.

    Shares of sixteenths; where there are two sides, also those of equal energy.
    """
    energies = ENERGIES if len(layer.spectra) > 1 else ()
    choices = [by_energy(layer, energy) for energy in energies]
    choices += [by_ratio(layer, share) for share in SHARES]
    found: dict[int, Factorization] = {}
    for how in filter(None, choices):
        found.setdefault(layer.saving(how), how)
    return [found[saved] for saved in sorted(found)]


@cache
def _macs_with(layer: Layer, how: Factorization) -> int:
    return _macs(factorized_structure(layer.module, how, layer.path), layer.shape)


def _macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    channels, *sides = shape
    return count_macs(module, cast(Size, tuple(sides)), channels)
