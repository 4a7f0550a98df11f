"""Which layers can be factorized, at which candidate ranks, and what each costs, exactly.

Costs are those of the exported network: each convolution has the bias that its batch norm becomes.
A rule gives one rank for each side of a method that has a spectrum (factorize.spectra). CP has one
rank for both sides: the larger, which is the least that a CP of those multilinear ranks can have.
A choice counts only if the layer's exact MACs fall.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from weighin.compress.factorize import Array, factors, product, spectra, weight_of
from weighin.compress.probe import InputStatistics, Probe, along_inputs, input_statistics
from weighin.images import Size
from weighin.network.build import (
    Factorization,
    Method,
    blank_image,
    evaluating,
    factorized_structure,
    structure,
)
from weighin.network.cost import count_macs, fold_batch_norms
from weighin.network.spec import NetworkSpec

SHARES = tuple(step / 16 for step in range(1, 16))
ENERGIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


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

    def note(path: str) -> Any:
        return lambda layer, inputs: shapes.update({path: tuple(inputs[0].shape[1:])})

    parts = {k: v for k, v in module.named_modules() if isinstance(v, nn.Conv2d | nn.Linear)}
    with ExitStack() as hooks, evaluating(module), torch.no_grad():
        for path, part in parts.items():
            hooks.callback(part.register_forward_pre_hook(note(path)).remove)
        module(blank_image(module, spec.input))
    return [
        Layer(path, parts[path], shape, _macs(parts[path], shape)) for path, shape in shapes.items()
    ]


def find_factorizable(layers: list[Layer], wide: Method, probe: Probe) -> list[FactorizableLayer]:
    """Return the layers that can be factorized, k x k ones by `wide`, with what they hold."""
    methods = {layer.path: method for layer in layers if (method := layer.method(wide))}
    inputs = input_statistics(probe.module, probe.sample, methods)
    return [
        factorizable(
            layer,
            methods[layer.path],
            weight_of(probe.module.get_submodule(layer.path)),
            inputs[layer.path],
        )
        for layer in layers
        if layer.path in methods
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
    for how in choices:
        if how is not None:
            found.setdefault(layer.layer.macs_with(how), how)
    return [found[macs] for macs in sorted(found, reverse=True)]


@cache
def _macs_with(layer: Layer, how: Factorization) -> int:
    return _macs(factorized_structure(layer.module, how, layer.path), layer.shape)


def _macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    channels, *sides = shape
    return count_macs(module, cast(Size, tuple(sides)), channels)
