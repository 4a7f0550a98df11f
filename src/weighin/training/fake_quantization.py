"""Training that feels 8 bits: weights and activations are rounded as an integer kernel has them.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018: the forward pass rounds, the backward pass goes through as if it had not (the
straight-through estimator, Bengio et al., 2013) where a number is inside its range. The ranges of
activations are those of the calibration and stay. Batch norms are folded into their convolutions
with their statistics fixed, as in the exported file, so that the weights that are rounded are the
ones that will be; gamma and beta are still trained.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weighin.network.cost import foldable_norms
from weighin.network.quantized import INPUT, LARGEST, Range


def fake_quantize(module: nn.Module, ranges: Mapping[str, Range]) -> None:
    """Make `module` compute as its quantized graph does, its numbers still trainable floats.

    `ranges` are those of network.quantized.activation_ranges. Names and parameters stay.
    """
    norms = dict(foldable_norms(module))
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            norm = module.get_submodule(norms[path]) if path in norms else None
            vars(layer)["forward"] = _rounded_convolution(layer, norm)
        elif isinstance(layer, nn.Linear):
            vars(layer)["forward"] = _rounded_linear(layer)
        if path in ranges:
            layer.register_forward_hook(_rounded_output(ranges[path]))
    if INPUT in ranges:
        module.register_forward_pre_hook(lambda _, inputs: _rounded(inputs[0], ranges[INPUT]))


def _rounded_convolution(conv: nn.Conv2d, norm: nn.Module | None) -> Callable[[Tensor], Tensor]:
    if norm is None:
        return lambda x: conv._conv_forward(x, rounded_weight(conv.weight), conv.bias)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    mean = norm.running_mean.clone()
    # NumPy's sqrt is IEEE's; torch's differs between processors' instruction sets
    variance = norm.running_var.cpu().numpy() + np.float32(norm.eps)
    inverse = torch.from_numpy(1 / np.sqrt(variance)).to(mean.device)
    vars(norm)["forward"] = _handed_on

    def forward(x: Tensor) -> Tensor:
        scale = norm.weight * inverse
        bias = norm.bias - mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        weight = rounded_weight(conv.weight * scale.view(-1, 1, 1, 1))
        y: Tensor = conv._conv_forward(x, weight, bias)
        return y

    return forward


def _handed_on(x: Tensor) -> Tensor:
    return x


def _rounded_linear(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return F.linear(x, rounded_weight(layer.weight), layer.bias)

    return forward


def rounded_weight(weight: Tensor) -> Tensor:
    """Return a weight in whole numbers of 7 bits times a scale for each output channel."""
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest)) / LARGEST
    zero = torch.zeros_like(scale, dtype=torch.int32)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(
        weight, scale, zero, 0, -LARGEST, LARGEST
    )
    return rounded


def _rounded_output(within: Range) -> Callable[[nn.Module, object, Tensor], Tensor]:
    return lambda _, inputs, output: _rounded(output, within)


def _rounded(x: Tensor, within: Range) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, within.scale, within.zero_point, 0, 255)
