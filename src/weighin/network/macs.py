"""The contest's rule for multiply-accumulates, as ptflops 0.6.4 counted them, batch 1.

| module, by exact type | MACs |
|---|---|
| Conv2d | prod(kernel) * C_in * (C_out / groups) * H_out * W_out, and outputs with a bias |
| Linear | inputs * out, and outputs with a bias |
| BatchNorm2d | 2 * inputs if affine, else inputs |
| MaxPool2d, AvgPool2d, AdaptiveMaxPool2d, AdaptiveAvgPool2d | inputs |
| everything else, subclasses of the above included | 0 |

mac_check.py refuses a network whose zeros hide work.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weighin.images import Size

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
COUNTED = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, *POOLS)
SAME_SHAPE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid)


@dataclass(frozen=True)
class LayerCost:
    """One call of one layer; `products` are the MACs of its convolution or matrix product alone."""

    path: str
    kind: str
    macs: int
    products: int
    params: int
    shape: tuple[int, ...]  # of the output, without the batch


def count_macs(module: nn.Module, size: Size, channels: int = 3) -> int:
    """Return the MACs of `module` for one image (channels, H, W) of `size`."""
    return sum(layer.macs for layer in layer_macs(module, size, channels))


def layer_macs(module: nn.Module, size: Size, channels: int = 3) -> list[LayerCost]:
    """Return the cost of every layer that the rule counts, in the order of their calls."""
    costs: list[LayerCost] = []

    def note(path: str) -> Any:
        return lambda layer, inputs, output: costs.append(_cost(path, layer, inputs[0], output))

    parts = [(path, part) for path, part in module.named_modules() if type(part) in COUNTED]
    with contextlib.ExitStack() as stack:
        for path, part in parts:
            stack.callback(part.register_forward_hook(note(path)).remove)
        with shaping(module), torch.no_grad():
            module(blank_image(module, size, channels))
    return costs


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers training can change."""
    return sum(parameter.numel() for parameter in module.parameters())


def blank_image(module: nn.Module, size: Size, channels: int = 3) -> Tensor:
    """Return one zero image (1, channels, H, W) on the device of `module`."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return torch.zeros(1, channels, *size, device=device)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in eval mode for a block; every part returns to its own mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def shaping(module: nn.Module) -> Iterator[None]:
    """Be `evaluating`; on the meta device, layers that keep a shape hand their input on.

    Torch works out their shapes in Python, which took most of the time of a count.
    """
    on_meta = any(parameter.is_meta for parameter in module.parameters())
    parts = [part for part in module.modules() if on_meta and type(part) in SAME_SHAPE]
    for part in parts:
        part.forward = _handed_on
    try:
        with evaluating(module):
            yield
    finally:
        for part in parts:
            del part.forward


def _handed_on(x: Tensor) -> Tensor:
    return x


def _cost(path: str, layer: nn.Module, x: Tensor, y: Tensor) -> LayerCost:
    products, extra = _work(layer, x, y)
    params = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    kind, shape = type(layer).__name__, tuple(y.shape[1:])
    return LayerCost(path, kind, products + extra, products, params, shape)


def _work(layer: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int]:
    """Return the products of a convolution or linear layer, and what the rule adds to them."""
    if isinstance(layer, nn.Conv2d):
        products = math.prod(layer.kernel_size) * layer.in_channels // layer.groups * y.numel()
        return products, 0 if layer.bias is None else y.numel()
    if isinstance(layer, nn.Linear):
        return x.numel() * layer.out_features, 0 if layer.bias is None else y.numel()
    if isinstance(layer, nn.BatchNorm2d):
        return 0, (2 if layer.affine else 1) * x.numel()
    return 0, x.numel()
