"""A network's training step as a recording: kernels and their arguments, without autograd.

The first batch of a size is recorded: every layer notes the kernels of its output, and then, from
the last layer to the first, those of its gradients; all of them work on maps that are kept. After
that a step is two lists of calls. Known layers compute by the compiled kernels (compiled.py),
others by torch. Names, weights and what a network computes stay: only the order of additions
differs.
"""

import contextlib
import ctypes
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weighin.network.blocks import Chain, Mean, MixedDepthwise, ShuffleNetV2, SqueezeExcitation
from weighin.training import activations, compiled
from weighin.training.recording import Back, Convolution, Recording, Step, convolution_class
from weighin.training.weights import FlatModule

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Sigmoid)


def keep_memory() -> None:
    """Let this process keep the memory of a step for the next one."""
    with contextlib.suppress(AttributeError):  # a C library that is not glibc
        allocator = ctypes.CDLL(None).mallopt
        for knob, size in ((TRIM_THRESHOLD, 2**30), (TOP_PAD, 2**26), (MMAP_THRESHOLD, 2**30)):
            allocator(knob, size)


def use_fast_kernels(module: nn.Module) -> None:
    """Let the convolutions of `module` compute by the compiled kernels."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = convolution_class(layer)


def record_steps(flat: FlatModule) -> None:
    """Let a module train by recordings; its one gradient is then that of all its weights (T,)."""
    use_fast_kernels(flat.module)
    flat.module.__class__ = Recorded
    assert isinstance(flat.module, Recorded)
    whole = torch.empty_like(flat.grads)
    flat.module.gradients = dict(zip(flat.leaves, flat.views(whole), strict=True))
    flat.module.gradient = whole
    flat.leaves = flat.module.leaves = [nn.Parameter(flat.weights[: flat.trained])]


class Recorded(nn.Sequential):
    """A network that trains by a recording of its step."""

    recording: Recording | None = None
    leaves: list[Tensor]  # not parameters of the module: it has each of them already
    gradient: Tensor
    gradients: dict[Tensor, Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, 3, H, W)."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        if self.recording is None or self.recording.images.shape != x.shape:
            self.recording = None  # its maps are freed before others are made
            self.recording = Recording(_chain(list(self)), x.shape, self.gradients)
        y: Tensor = _Replay.apply(x, self.leaves[0], self.recording, self.gradient)
        return y


class _Replay(torch.autograd.Function):
    """A whole network as one operation; its gradient is good until the next one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _: Tensor, recording: Recording, gradient: Tensor) -> Tensor:
        recording.runs += 1
        ctx.recording, ctx.gradient, ctx.run = recording, gradient, recording.runs
        recording.images.copy_(x)
        for call in recording.forward:
            call()
        return recording.logits.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        recording = ctx.recording
        if ctx.run != recording.runs:
            raise RuntimeError("a recording keeps the maps of its last images only")
        recording.slope.copy_(dy)
        for call in recording.backward:
            call()
        return None, ctx.gradient, None, None


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
            steps.append(single_step(layers[0]))
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


def single_step(layer: nn.Module) -> Step:
    """Return one layer as a step."""
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
    if isinstance(layer, nn.MaxPool2d) and layer.dilation == 1 and not layer.ceil_mode:
        sides = (layer.kernel_size, layer.stride, layer.padding)
        return _max_pool(*sides) if all(isinstance(side, int) for side in sides) else _Other(layer)
    if isinstance(layer, nn.Flatten):
        return _flatten
    if isinstance(layer, nn.ZeroPad2d):
        return _zero_pad(layer)
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
        places = [r.gradient(weight) for weight in weights]

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
                for place, grad in zip(places, found[1:], strict=True):
                    place.copy_(grad)

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
    r.run(activations.means(), [x, y], count, height * width, channels, 1 / (height * width))

    def back(dy: Tensor) -> Tensor:
        dx = r.maps(*x.shape)
        r.do(torch.mul, dy.expand(x.shape), 1 / (height * width), out=dx)
        return dx

    return y, back


def _flatten(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
    y = torch.empty(len(x), x[0].numel())
    r.do(y.view(x.shape).copy_, x)

    def back(dy: Tensor) -> Tensor:
        dx = r.maps(*x.shape)
        r.do(dx.copy_, dy.view(x.shape))
        return dx

    return y, back


def _max_pool(side: Any, stride: Any, pad: Any) -> Step:
    def run(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        x, (count, channels, *sizes) = r.laid(x), x.shape
        y, taken = (r.maps(*F.max_pool2d(x, side, stride, pad).shape) for _ in range(2))
        shape = (count, *sizes, channels, *y.shape[2:], pad)
        r.run(compiled.max_pool_forward(side, stride), [x, y, taken], *shape)

        def back(dy: Tensor) -> Tensor:
            dx = r.maps(*x.shape)
            r.run(compiled.max_pool_backward(side, stride), [r.laid(dy), taken, dx], *shape)
            return dx

        return y, back

    return run


def _zero_pad(layer: nn.ZeroPad2d) -> Step:
    left, right, top, bottom = layer.padding

    def run(x: Tensor, r: Recording) -> tuple[Tensor, Back]:
        count, channels, height, width = x.shape
        y = r.maps(count, channels, top + height + bottom, left + width + right).zero_()

        def inner(maps: Tensor) -> Tensor:
            return maps[:, :, top : top + height, left : left + width]

        r.do(inner(y).copy_, x)

        def back(dy: Tensor) -> Tensor:
            dx = r.maps(*x.shape)
            r.do(dx.copy_, inner(dy))
            return dx

        return y, back

    return run


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
    groups = [single_step(group) for group in layer.groups]

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
            activations.norm_forward(self.act),
            [x, y, *weights, *moving],
            pixels,
            channels,
            *numbers,
        )

        def back(dy: Tensor) -> Tensor:
            dy, dx = r.laid(dy), r.maps(*x.shape)
            maps = [dy, x, *weights, r.gradient(norm.weight), r.gradient(norm.bias), dx]
            r.run(activations.norm_backward(self.act), maps, pixels, channels, 1 / pixels)
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
        r.run(activations.gate_forward(self.act), [x, gate, y], *size)

        def back(dy: Tensor) -> Tensor:
            dy, dgate, dx = r.laid(dy), r.maps(*gate.shape), r.maps(*x.shape)
            r.run(activations.gate_gradient(self.act), [dy, x, gate, dgate], *size)
            dmean = back_reduce(back_expand(dgate))
            maps = [dy, x, gate, dmean, dx]
            r.run(activations.gate_backward(self.act), maps, *size, 1 / size[1])
            return dx

        return y, back


def _shifted(conv: Any, act: nn.Module, x: Tensor, r: Recording) -> tuple[Tensor, Back]:
    """A pointwise convolution with a bias, and an activation, of vectors (B, C, 1, 1)."""
    if not isinstance(conv, Convolution):  # it was factorized
        return _chain([conv, act])(x, r)
    bias: Any = conv.bias
    name, z = type(act).__name__, conv.convolved(x, r)
    y, size = r.maps(*z.shape), z.shape[:2]
    r.run(activations.shift_forward(name), [z, bias, y], *size)

    def back(dy: Tensor) -> Any:
        dz = r.maps(*z.shape)
        r.run(activations.shift_backward(name), [dy, z, bias, dz, r.gradient(bias)], *size)
        return conv.gradients(x, dz, r)

    return y, back
