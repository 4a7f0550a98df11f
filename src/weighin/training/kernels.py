"""A network's training step as a recording: kernels and their arguments, without autograd.

The first batch of a size is recorded: every layer notes the kernels of its output, and then, from
the last layer to the first, those of its gradients; all of them work on maps that are kept. After
that a step is two lists of calls. Known layers compute by the compiled kernels (compiled.py),
others by torch. Names, weights and what a network computes stay: only the order of additions
differs.
"""

import contextlib
import ctypes
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from weighin.network.blocks import Chain, MixedDepthwise, ShuffleNetV2
from weighin.network.layers import Mean, SqueezeExcitation
from weighin.training import compiled

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt
UNIT = ((1, 1), (1, 1), (0, 0), 1)  # kernel, stride, padding and groups of a pointwise convolution
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Sigmoid)


def keep_memory() -> None:
    """Let this process keep the memory of a step for the next one."""
    with contextlib.suppress(AttributeError):  # a C library that is not glibc
        allocator = ctypes.CDLL(None).mallopt
        for knob, size in ((TRIM_THRESHOLD, 2**30), (TOP_PAD, 2**26), (MMAP_THRESHOLD, 2**30)):
            allocator(knob, size)


def use_fast_kernels(module: nn.Module) -> None:
    """Let `module` train by recordings, and its convolutions compute by the compiled kernels."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = _convolution_class(layer)
    module.__class__ = Recorded


class Recorded(nn.Sequential):
    """A network that trains by a recording of its step."""

    recording: "Recording | None" = None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, 3, H, W)."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        if self.recording is None or self.recording.images.shape != x.shape:
            self.recording = None  # its maps are freed before others are made
            self.recording = Recording(self, x.shape)
        y: Tensor = _Replay.apply(x, self.recording, *self.recording.trained)
        return y


class _Replay(torch.autograd.Function):
    """A whole network as one operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, recording: "Recording", *trained: Tensor) -> Tensor:
        ctx.recording = recording
        recording.images.copy_(x)
        for call in recording.forward:
            call()
        return recording.logits.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        recording = ctx.recording
        recording.slope.copy_(dy)
        for call in recording.backward:
            call()
        return None, None, *(recording.grads[weight] for weight in recording.trained)


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
        return _maps(*shape)

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

    def __init__(self, module: nn.Sequential, shape: torch.Size) -> None:
        self.images = _maps(*shape)
        self.trained = [p for p in module.parameters() if p.requires_grad]
        self.grads: dict[Tensor, Tensor] = {}
        self.forward: list[Callable[[], Any]] = []
        self.backward: list[Callable[[], Any]] = []
        self.kept: list[Tensor] = []  # maps are kept by their addresses alone otherwise
        self.free: dict[int, list[Tensor]] = defaultdict(list)
        self.calls = self.forward
        self.logits, back = _chain(list(module))(self.images, self)
        self.slope, self.calls = torch.empty_like(self.logits), self.backward
        back(self.slope)

    def run(self, kernel: Callable[..., None], tensors: list[Tensor], *numbers: float) -> None:
        """Record a compiled kernel."""
        self.kept += tensors
        self.calls.append(partial(kernel, *(t.data_ptr() for t in tensors), *numbers))

    def do(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Record a call of torch."""
        self.calls.append(partial(function, *args, **options))

    def maps(self, *shape: int) -> Tensor:
        """Return a new map, or one that was given back."""
        found = _maps(*shape)
        free = self.free[found.numel()]
        return free.pop().as_strided(found.shape, found.stride()) if free else found

    def give_back(self, maps: Tensor) -> None:
        """Let later maps of the backward pass have this one's memory."""
        self.free[maps.numel()].append(maps)


def _chain(layers: list[nn.Module]) -> Step:
    """Return layers as one step; batch norm or gate and activation are one kernel."""
    steps: list[Step] = []
    while layers:
        active = layers[1:] and type(layers[1]) in ACTIVATIONS
        if isinstance(layers[0], nn.BatchNorm2d | SqueezeExcitation):
            name = type(layers[1]).__name__ if active else "Identity"
            fused = _Norm if isinstance(layers[0], nn.BatchNorm2d) else _Gate
            steps.append(fused(layers[0], name))
            layers = layers[2 if active else 1 :]
        else:
            steps.append(_step(layers[0]))
            layers = layers[1:]

    def step(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        backs = []
        for inner in steps:
            x, back = inner(x, r)
            backs.append(back)

        def all_backs(dy: Tensor) -> Any:
            grad = dy
            for back in reversed(backs):
                before, grad = grad, back(grad)
                if before is not dy and before is not grad:
                    r.give_back(before)
            return grad

        return x, all_backs

    return step


def _step(layer: nn.Module) -> Step:
    if isinstance(layer, Convolution):
        return layer.step
    if isinstance(layer, Chain):
        step = _chain(list(layer.conv))
        return _residual(step) if layer.identity else step
    if isinstance(layer, nn.Sequential):
        return _chain(list(layer))
    if isinstance(layer, ShuffleNetV2):
        return _shuffle(layer)
    if isinstance(layer, MixedDepthwise):
        return _mixed(layer)
    return _mean if isinstance(layer, Mean) else _Other(layer)


@dataclass
class _Other:
    """Any layer, by autograd."""

    layer: nn.Module

    def __call__(self, x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        weights = [p for p in self.layer.parameters() if p.requires_grad]
        with torch.no_grad():
            y = torch.empty_like(self.layer(torch.zeros_like(x)))
        graph: list[Tensor] = []
        for weight in weights:
            r.grads[weight] = torch.empty_like(weight)

        def forward() -> None:
            with torch.enable_grad():
                graph[:] = [x.detach().requires_grad_()]
                graph.append(self.layer(graph[0].clone()))  # it may write over its input
            y.copy_(graph[1].detach())

        def back(dy: Tensor) -> Tensor:
            dx = r.maps(*x.shape) if x.dim() == 4 else torch.empty_like(x)

            def backward() -> None:
                found = torch.autograd.grad(graph[1], [graph[0], *weights], dy)
                dx.copy_(found[0])
                for weight, grad in zip(weights, found[1:], strict=True):
                    r.grads[weight].copy_(grad)

            r.do(backward)
            return dx

        r.do(forward)
        return y, back


def _residual(step: Step) -> Step:
    def run(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        y, back = step(x, r)
        out = r.maps(*y.shape)
        r.do(torch.add, x, y, out=out)

        def both(dy: Tensor) -> Tensor:
            dx: Tensor = back(dy)
            r.do(dx.add_, dy)
            return dx

        return out, both

    return run


def _mean(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
    x = r.laid(x)
    (count, channels, height, width), y = x.shape, r.maps(*x.shape[:2], 1, 1)
    r.run(compiled.means(), [x, y], count, height * width, channels, 1 / (height * width))

    def back(dy: Tensor) -> Tensor:
        dx = r.maps(*x.shape)
        r.do(torch.mul, dy.expand(x.shape), 1 / (height * width), out=dx)
        return dx

    return y, back


def _shuffle(layer: ShuffleNetV2) -> Step:
    first, second = _chain(list(layer.branch1)), _chain(list(layer.branch2))

    def run(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        a, b = torch.split(x, layer.sizes, dim=1) if layer.halve else (x, x)
        (a, back_a), (b, back_b) = first(a, r), second(r.laid(b), r)
        y = r.maps(len(x), 2 * a.shape[1], *a.shape[2:])
        r.do(y[:, 0::2].copy_, a)
        r.do(y[:, 1::2].copy_, b)

        def back(dy: Tensor) -> Tensor:
            da, db = back_a(r.laid(dy[:, 0::2])), back_b(r.laid(dy[:, 1::2]))
            dx = r.maps(*x.shape)
            if not layer.halve:
                r.do(torch.add, da, db, out=dx)
                return dx
            for part, grad in zip(torch.split(dx, layer.sizes, dim=1), (da, db), strict=True):
                r.do(part.copy_, grad)
                r.give_back(grad)
            return dx

        return y, back

    return run


def _mixed(layer: MixedDepthwise) -> Step:
    groups = [_step(group) for group in layer.groups]

    def run(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        parts = [r.laid(part) for part in torch.split(x, layer.sizes, dim=1)]
        ys, backs = zip(*(g(p, r) for g, p in zip(groups, parts, strict=True)), strict=True)
        y = r.maps(len(x), x.shape[1], *ys[0].shape[2:])
        r.do(torch.cat, ys, 1, out=y)

        def back(dy: Tensor) -> Tensor:
            slopes = [r.laid(part) for part in torch.split(dy, layer.sizes, dim=1)]
            grads, dx = [b(g) for b, g in zip(backs, slopes, strict=True)], r.maps(*x.shape)
            r.do(torch.cat, grads, 1, out=dx)
            return dx

        return y, back

    return run


@dataclass
class _Norm:
    """Batch norm and activation."""

    norm: Any
    act: str

    def __call__(self, x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        x, norm = r.laid(x), self.norm
        count, channels, height, width = x.shape
        pixels = count * height * width
        mean, inverse = torch.empty(channels), torch.empty(channels)
        y, weights = r.maps(*x.shape), [norm.weight, norm.bias, mean, inverse]
        numbers = (1 / pixels, pixels / max(pixels - 1, 1), norm.eps, norm.momentum)
        moving = [norm.running_mean, norm.running_var]
        r.run(
            compiled.norm_forward(self.act), [x, y, *weights, *moving], pixels, channels, *numbers
        )

        def back(dy: Tensor) -> Tensor:
            dy, dx, grads = r.laid(dy), r.maps(*x.shape), [torch.empty(channels) for _ in range(2)]
            maps = [dy, x, *weights, *grads, dx]
            r.run(compiled.norm_backward(self.act), maps, pixels, channels, 1 / pixels)
            r.grads[norm.weight], r.grads[norm.bias] = grads
            return dx

        return y, back


@dataclass
class _Gate:
    """Squeeze-excitation and activation."""

    layer: Any
    act: str

    def __call__(self, x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        reduce, first, expand, last = self.layer.gate
        x, (count, channels, height, width) = r.laid(x), x.shape
        size = (count, height * width, channels)
        mean, _ = _mean(x, r)
        hidden, back_reduce = _shifted(reduce, first, mean, r)
        gate, back_expand = _shifted(expand, last, hidden, r)
        y = r.maps(*x.shape)
        r.run(compiled.gate_forward(self.act), [x, gate, y], *size)

        def back(dy: Tensor) -> Tensor:
            dy, dgate, dx = r.laid(dy), r.maps(*gate.shape), r.maps(*x.shape)
            r.run(compiled.gate_gradient(self.act), [dy, x, gate, dgate], *size)
            dmean = back_reduce(back_expand(dgate))
            maps = [dy, x, gate, dmean, dx]
            r.run(compiled.gate_backward(self.act), maps, *size, 1 / size[1])
            return dx

        return y, back


def _shifted(conv: Any, act: nn.Module, x: Tensor, r: Recording) -> tuple[Tensor, Back]:
    """A pointwise convolution with a bias, and an activation, of vectors (B, C, 1, 1)."""
    if not isinstance(conv, Convolution):  # it was factorized
        return _chain([conv, act])(x, r)
    bias: Any = conv.bias
    name, z = type(act).__name__, conv.convolved(x, r)
    y, size = r.maps(*z.shape), z.shape[:2]
    r.run(compiled.shift_forward(name), [z, bias, y], *size)

    def back(dy: Tensor) -> Any:
        dz, shift = r.maps(*z.shape), torch.empty(size[1])
        r.run(compiled.shift_backward(name), [dy, z, bias, dz, shift], *size)
        r.grads[bias] = shift
        return conv.gradients(x, dz, r)

    return y, back


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
                r.grads[self.bias] = torch.empty_like(self.bias)
                r.do(torch.sum, dy, (0, 2, 3), out=r.grads[self.bias])
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
        dw, dx = torch.empty_like(weight), r.maps(*x.shape) if wanted else None
        shape = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)

        def backward() -> None:
            back = torch.ops.aten.convolution_backward
            found = back(dy, x, weight, None, *shape, (wanted, True, False))
            dw.copy_(found[1])
            if dx is not None:
                dx.copy_(found[0])

        r.do(backward)
        r.grads[self.weight] = dw
        return dx


class Pointwise(Convolution):
    """A convolution of single pixels: a product of matrices."""

    def convolved(self, x: Tensor, r: Calls) -> Tensor:
        """Record maps (B, O, H, W) of x (B, C, H, W)."""
        (count, channels, height, width), outputs = x.shape, self.out_channels
        y, right = r.maps(count, outputs, height, width), torch.empty(channels, outputs)
        r.do(right.copy_, self.weight.detach().view(outputs, channels).t())
        sizes = (count * height * width, outputs, channels, channels, 1)
        r.run(compiled.product(), [x, right, y], *sizes)
        return y

    def gradients(self, x: Tensor, dy: Tensor, r: Recording) -> Any:
        """Record the gradient of the weight, and of x where it is not the images."""
        (count, channels, height, width), outputs = x.shape, self.out_channels
        pixels, dw, dx = count * height * width, torch.empty(outputs, channels, 1, 1), None
        if x is not r.images:
            dx = r.maps(*x.shape)
            sizes = (pixels, channels, outputs, outputs, 1)
            r.run(compiled.product(), [dy, self.weight, dx], *sizes)
        r.run(compiled.product(), [dy, x, dw], outputs, channels, pixels, 1, outputs)
        r.grads[self.weight] = dw
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
        r.grads[self.weight] = sums.t().view(channels, 1, side, side)
        return dx

    def _taps(self, r: Calls, turned: bool = False) -> Tensor:
        """Record the weight as (k * k, C), from its last tap to its first where it is turned."""
        weight = self.weight.detach().view(self.out_channels, -1).t()
        taps = torch.empty(weight.shape)
        r.do(lambda: taps.copy_(weight.flip(0) if turned else weight))
        return taps


def _convolution_class(layer: nn.Conv2d) -> type[Convolution]:
    if (layer.kernel_size, layer.stride, layer.padding, layer.groups) == UNIT:
        return Pointwise
    sides = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    square = all(side[0] == side[-1] for side in sides) and layer.dilation == (1, 1)
    alone = layer.groups == layer.in_channels == layer.out_channels and layer.bias is None
    return Depthwise if alone and square else Convolution


def _maps(*shape: int) -> Tensor:
    return torch.empty(shape, memory_format=torch.channels_last)
