"""The calls of a training step, noted once: which kernels run on which addresses.

Convolutions are its steps here: of single pixels, of single channels, and others. The other layers
are those of kernels.py.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from weighin.training import compiled

Back = Callable[[Tensor], Any]
Step = Callable[[Tensor, Any], tuple[Tensor, Back]]


class Calls:
    """Calls of kernels and of torch, made at once."""

    images: Any = None

    def run(self, kernel: Callable[..., None], tensors: list[Tensor], *numbers: float) -> None:
        """Call a compiled kernel."""
        kernel(*(tensor.data_ptr() for tensor in tensors), *numbers)

    def do(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Call a function of torch."""
        function(*args, **options)

    def maps(self, *shape: int) -> Tensor:
        """Return a new map."""
        return dense_maps(*shape)

    def laid(self, x: Tensor) -> Tensor:
        """Return a map that is dense and channels last: x itself, or a copy."""
        if x.is_contiguous(memory_format=torch.channels_last):
            return x
        y = self.maps(*x.shape)
        self.do(y.copy_, x)
        return y


class Recording(Calls):
    """The calls of a step on images of one shape, and the maps and gradients that they work on.

    A step of a layer takes a map and returns a new one, and what records the gradients of that: it
    takes the gradient of the new map and returns the gradient of the other, again a new map.
    """

    def __init__(
        self, step: Step, shape: torch.Size, gradients: Mapping[Tensor, Tensor] | None = None
    ) -> None:
        """Record a step on images of a shape; `gradients` are what it sets, by their parameters."""
        self.images = dense_maps(*shape)
        self.gradients, self.written = gradients or {}, list[Tensor]()
        self.forward: list[Callable[[], Any]] = []
        self.backward: list[Callable[[], Any]] = []
        self.kept: list[Tensor] = []  # maps are kept by their addresses alone otherwise
        self.free: dict[int, list[Tensor]] = defaultdict(list)
        self.calls, self.runs = self.forward, 0
        self.logits, back = step(self.images, self)
        self.slope, self.calls = torch.empty_like(self.logits), self.backward
        back(self.slope)
        if len(self.written) != len(self.gradients):
            raise RuntimeError("a step must write each gradient once")

    def run(self, kernel: Callable[..., None], tensors: list[Tensor], *numbers: float) -> None:
        """Record a compiled kernel."""
        self.kept += tensors
        self.calls.append(partial(kernel, *(t.data_ptr() for t in tensors), *numbers))

    def do(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Record a call of torch."""
        self.calls.append(partial(function, *args, **options))

    def maps(self, *shape: int) -> Tensor:
        """Return a new map, or one that was given back."""
        found = dense_maps(*shape)
        free = self.free[found.numel()]
        return free.pop().as_strided(found.shape, found.stride()) if free else found

    def gradient(self, parameter: Tensor) -> Tensor:
        """Return what the gradient of a parameter is written to: its own place, or a new one."""
        place = self.gradients.get(parameter)
        if place is None:
            return torch.empty_like(parameter)
        self.written.append(place)
        return place

    def give_back(self, maps: Tensor) -> None:
        """Let later maps of the backward pass have this one's memory."""
        self.free[maps.numel()].append(maps)


def dense_maps(*shape: int) -> Tensor:
    """Return new maps that lie channels last."""
    return torch.empty(shape, memory_format=torch.channels_last)


UNIT = ((1, 1), (1, 1), (0, 0), 1)  # kernel, stride, padding and groups of a pointwise convolution


def convolution_class(layer: nn.Conv2d) -> type["Convolution"]:
    """Return the class that computes what `layer` does."""
    if (layer.kernel_size, layer.stride, layer.padding, layer.groups) == UNIT:
        return Pointwise
    sides = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    square = all(side[0] == side[-1] for side in sides) and layer.dilation == (1, 1)
    alone = layer.groups == layer.in_channels == layer.out_channels and layer.bias is None
    return Depthwise if alone and square else Convolution


class Convolution(nn.Conv2d):
    """A convolution that is a step."""

    def forward(self, x: Tensor) -> Tensor:
        """Return maps without gradients."""
        with torch.no_grad():
            y: Tensor = self.step(x, Calls())[0]
            return y

    def step(self, x: Tensor, r: Any) -> tuple[Tensor, Back]:
        """Record the convolution, and a bias."""
        x = r.laid(x)
        y = self.convolved(x, r)
        if self.bias is not None:
            r.do(y.add_, self.bias.detach().view(1, -1, 1, 1))

        def back(dy: Tensor) -> Any:
            dy = r.laid(dy)
            if self.bias is not None:
                r.do(torch.sum, dy, (0, 2, 3), out=r.gradient(self.bias))
            return self.gradients(x, dy, r)

        return y, back

    def sizes(self, x: Tensor) -> tuple[int, int]:
        """Return the height and width of the output."""
        sides: Any = (self.padding, self.dilation, self.kernel_size, self.stride)
        places = zip(x.shape[2:], *sides, strict=True)
        height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in places)
        return height, width

    def convolved(self, x: Tensor, r: Calls) -> Tensor:
        """Record maps (B, O, H', W') of x (B, C, H, W), without the bias."""
        y, weight = r.maps(len(x), self.out_channels, *self.sizes(x)), self.weight.detach()
        how: Any = (self.stride, self.padding, self.dilation, self.groups)
        r.do(lambda: y.copy_(nn.functional.conv2d(x, weight, None, *how)))
        return y

    def gradients(self, x: Tensor, dy: Tensor, r: Recording) -> Any:
        """Record the gradient of the weight, and of x where it is not the images."""
        weight, wanted = self.weight.detach(), x is not r.images
        dw, dx = r.gradient(self.weight), r.maps(*x.shape) if wanted else None
        shape = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)

        def backward() -> None:
            back = torch.ops.aten.convolution_backward
            found = back(dy, x, weight, None, *shape, (wanted, True, False))
            dw.copy_(found[1])
            if dx is not None:
                dx.copy_(found[0])

        r.do(backward)
        return dx


class Pointwise(Convolution):
    """A convolution of single pixels: a product of matrices."""

    def convolved(self, x: Tensor, r: Calls) -> Tensor:
        """Record maps (B, O, H, W) of x (B, C, H, W)."""
        (count, channels, height, width), outputs = x.shape, self.out_channels
        y, right = r.maps(count, outputs, height, width), torch.empty(channels, outputs)
        r.run(compiled.transposed(), [self.weight, right], outputs, channels)
        sizes = (count * height * width, outputs, channels, channels, 1)
        r.run(compiled.product(), [x, right, y], *sizes)
        return y

    def gradients(self, x: Tensor, dy: Tensor, r: Recording) -> Any:
        """Record the gradient of the weight, and of x where it is not the images."""
        (count, channels, height, width), outputs = x.shape, self.out_channels
        pixels, dw, dx = count * height * width, r.gradient(self.weight), None
        if x is not r.images:
            dx = r.maps(*x.shape)
            sizes = (pixels, channels, outputs, outputs, 1)
            r.run(compiled.product(), [dy, self.weight, dx], *sizes)
        r.run(compiled.product(), [dy, x, dw], outputs, channels, pixels, 1, outputs)
        return dx


class Depthwise(Convolution):
    """A convolution of each channel alone, by a square kernel."""

    def convolved(self, x: Tensor, r: Calls) -> Tensor:
        """Record maps (B, C, H', W') of x (B, C, H, W)."""
        side, stride, pad = self.kernel_size[0], self.stride[0], int(self.padding[0])
        count, channels, *sizes = x.shape
        taps = self._taps(r)
        y = r.maps(count, channels, *self.sizes(x))
        shape = (count, *sizes, channels, *self.sizes(x), pad)
        r.run(compiled.depthwise_forward(side, stride), [x, taps, y], *shape)
        return y

    def gradients(self, x: Tensor, dy: Tensor, r: Recording) -> Any:
        """Record the gradient of the weight, and of x where it is not the images."""
        side, stride, pad = self.kernel_size[0], self.stride[0], int(self.padding[0])
        (count, channels, *sizes), outputs = x.shape, dy.shape[2:]
        dx, sums = None, torch.empty(side * side, channels)
        shape = (count, *sizes, channels, *outputs, pad)
        if x is not r.images:
            dx = r.maps(*x.shape)
            if stride == 1:  # the convolution of dy with the kernel turned around
                back = (count, *outputs, channels, *sizes, side - 1 - pad)
                taps = self._taps(r, turned=True)
                r.run(compiled.depthwise_forward(side, 1), [dy, taps, dx], *back)
            else:
                r.run(compiled.depthwise_input(side, stride), [dy, self._taps(r), dx], *shape)
        r.run(compiled.depthwise_weight(side, stride), [x, dy, sums], *shape)
        r.run(compiled.transposed(), [sums, r.gradient(self.weight)], side * side, channels)
        return dx

    def _taps(self, r: Calls, turned: bool = False) -> Tensor:
        """Record the weight as (k * k, C), from its last tap to its first where it is turned."""
        count = self.weight[0].numel()
        taps = torch.empty(count, self.out_channels)
        r.run(compiled.transposed(turned), [self.weight, taps], self.out_channels, count)
        return taps
