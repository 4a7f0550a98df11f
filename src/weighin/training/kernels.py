"""The same training by faster kernels, and memory that is kept: 1.5x on the seed network.

Microseconds on one pinned thread at batch 32, forward + backward:

    1 x 1 convolution 64 -> 16 of 1 x 1 maps          188 as a convolution, 17 as matrix products
    3 x 3 depthwise weight gradient, 192 maps of 1 x 2    1,917 by oneDNN, 77 by shifted products
    5 x 5 depthwise weight gradient, 480 maps of 3 x 3   11,761 by oneDNN, 1,081
    gradient of the mean of 64 maps of 6 x 8                           54 as a quotient, 0 as a view

Memory given back to the system and mapped anew, page by page, cost 13 % to 19 % of a step.
"""

import contextlib
import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weighin.network.layers import Mean

FEW_MACS = 1_200_000  # of a batch: below, a convolution's preparations outweigh its arithmetic
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt
UNIT = ((1, 1), (1, 1), (0, 0), 1)  # kernel, stride, padding and groups of a pointwise convolution
Pair = tuple[int, int]


def keep_memory() -> None:
    """Let this process keep the memory of a step for the next one."""
    with contextlib.suppress(AttributeError):  # a C library that is not glibc
        allocator = ctypes.CDLL(None).mallopt
        for knob, size in ((TRIM_THRESHOLD, 2**30), (TOP_PAD, 2**26), (MMAP_THRESHOLD, 2**30)):
            allocator(knob, size)


def use_fast_kernels(module: nn.Module) -> None:
    """Let layers of `module` choose their kernels by the size of their maps.

    Names, weights and what they compute stay: only the order of additions differs.
    """
    for layer in module.modules():
        layer.__class__ = _fast_class(layer)


def _fast_class(layer: nn.Module) -> type[nn.Module]:
    if type(layer) is Mean or (type(layer) is nn.AdaptiveAvgPool2d and layer.output_size == 1):
        return _Mean
    if type(layer) is not nn.Conv2d or layer.dilation != (1, 1):
        return type(layer)
    if (layer.kernel_size, layer.stride, layer.padding, layer.groups) == UNIT:
        return _Pointwise
    alone = layer.groups == layer.in_channels == layer.out_channels and layer.bias is None
    return _Depthwise if alone else type(layer)


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])


class _Pointwise(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        pixels = count * height * width
        if height * width > 1 and pixels * self.weight.numel() > FEW_MACS:
            return super().forward(x)
        rows = x.permute(0, 2, 3, 1).reshape(pixels, -1)
        y = F.linear(rows, self.weight.flatten(1), self.bias)
        return y.view(count, height, width, -1).permute(0, 3, 1, 2)


class _Depthwise(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] >= self.kernel_size[0] or not torch.is_grad_enabled():
            return super().forward(x)
        y: Tensor = _ShiftedProducts.apply(x, self.weight, self.stride, self.padding)
        return y


class _ShiftedProducts(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is summed offset by offset.

    oneDNN has no fast kernel for it on maps that are lower than the kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        shape = (ctx.stride, ctx.padding, (1, 1), False, (0, 0), len(weight))
        wanted = (ctx.needs_input_grad[0], False, False)
        into = torch.ops.aten.convolution_backward(grad, x, weight, None, *shape, wanted)[0]
        side = (weight.shape[2], weight.shape[3])
        return into, depthwise_weight_gradient(x, grad, side, ctx.stride, ctx.padding), None, None


def depthwise_weight_gradient(
    x: Tensor, grad: Tensor, kernel: Pair, stride: Pair, padding: Pair
) -> Tensor:
    """Return dW (C, 1, k, k): the sum of grad[b, c, y, x] times its input at each offset.

    x is (B, C, H, W), grad (B, C, H', W'); what lies outside x is zero, and is not multiplied.
    """
    out = x.new_zeros(*kernel, x.shape[1])
    x, grad = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    rows = [_inside(i - padding[0], stride[0], x.shape[1], grad.shape[1]) for i in range(kernel[0])]
    sides = [
        _inside(j - padding[1], stride[1], x.shape[2], grad.shape[2]) for j in range(kernel[1])
    ]
    for i, row in enumerate(rows):
        for j, side in enumerate(sides):
            if row and side:
                product = x[:, row[1], side[1]] * grad[:, row[0], side[0]]
                torch.sum(product, (0, 1, 2), out=out[i, j])
    return out.permute(2, 0, 1).unsqueeze(1)


def _inside(shift: int, stride: int, size: int, outputs: int) -> tuple[slice, slice] | None:
    """Return the outputs o for which o * stride + shift is inside `size`, and where that is."""
    first = max(0, -(shift // stride))
    last = min(outputs, (size - 1 - shift) // stride + 1)
    if first >= last:
        return None
    start, end = first * stride + shift, (last - 1) * stride + shift + 1
    return slice(first, last), slice(start, end, stride)
