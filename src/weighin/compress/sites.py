"""Where a network can be factorized, and what that would cost, exactly.

Costs are those of the exported network: each convolution has the bias that its batch norm becomes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import torch
from torch import nn

from weighin.images import Size
from weighin.network.build import structure
from weighin.network.factorized import Factorization, Method, factorize
from weighin.network.folding import fold_batch_norms
from weighin.network.macs import blank_image, count_macs, evaluating
from weighin.network.spec import NetworkSpec


@dataclass(frozen=True)
class Site:
    """One convolution or linear layer of the folded network, on the meta device."""

    path: str
    layer: nn.Module = field(repr=False)
    shape: tuple[int, ...]  # of its input, without the batch
    macs: int

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The weight's shape, (O, I, H, W) or (O, I)."""
        return tuple(cast(torch.Tensor, self.layer.weight).shape)

    def method(self, wide: Method) -> Method | None:
        """Return how the layer can be factorized: svd if pointwise, `wide` if k x k, or None."""
        if isinstance(self.layer, nn.Linear):
            return "svd"
        assert isinstance(self.layer, nn.Conv2d)
        if self.layer.groups != 1:
            return None
        return "svd" if self.layer.kernel_size == (1, 1) else wide

    def macs_with(self, how: Factorization) -> int:
        """Return the MACs of the pieces that would stand for the layer."""
        return _macs_with(self, how)


def find_sites(spec: NetworkSpec, classes: int) -> list[Site]:
    """Return every convolution and linear layer of a network, in the order of their calls.

    Raises:
        NetworkError: the rows do not make a network.
    """
    module = fold_batch_norms(structure(spec, classes))
    return [
        Site(path, layer, shape, _macs(layer, shape))
        for path, layer, shape in _called(module, spec.input)
    ]


def _called(module: nn.Module, size: Size) -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            shapes[path] = tuple(inputs[0].shape[1:])

        return hook

    kinds = nn.Conv2d | nn.Linear
    layers = {path: part for path, part in module.named_modules() if isinstance(part, kinds)}
    for path, layer in layers.items():
        layer.register_forward_pre_hook(note(path))
    with evaluating(module), torch.no_grad():
        module(blank_image(module, size))
    yield from ((path, layers[path], shape) for path, shape in shapes.items())


@cache
def _macs_with(site: Site, how: Factorization) -> int:
    return _macs(factorize(site.layer, how, site.path), site.shape)


def _macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    channels, *sides = shape
    return count_macs(module, cast(Size, tuple(sides)), channels)
