"""Every block that a row can name. A new one is a class like these and a line in `BLOCKS`.

A block's `__init__` is its row's signature: the input's channels first, then the row's arguments,
whose annotations carry type and range. `Channels` are scaled by the network's width, and a stride
called `s` belongs to one repeat (`stride_on`). Blocks and argument order are those of the course
that the contest came with; counts of whole networks are pinned in tests/network/test_macs.py.

Shape letters: B images, C channels, H rows, W columns. A convolution that a batch norm follows has
no bias, since the norm would cancel it. Only exact torch.nn types are used for anything that the
MAC rule counts: it does not see subclasses.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from weighin.validation import parameter

Channels = Annotated[
    int, parameter("output channels, times the width, to a multiple of 8", "", 1, 8192)
]
FixedChannels = Annotated[int, parameter("outputs, whatever the width", "", 1, 100_000)]
Kernel = Annotated[int, parameter("side of the kernel", "pixels", 1, 31)]
Kernels = Annotated[tuple[Kernel, ...], parameter("sides of the kernels, one a group")]
Stride = Annotated[int, parameter("", "pixels", 1, 2)]
WideStride = Annotated[int, parameter("", "pixels", 1, 8)]
OptionalStride = Annotated[int | None, parameter("null: the kernel's side", "pixels", 1, 8)]
Padding = Annotated[int | None, parameter("null: half the kernel", "pixels", 0, 15)]
Groups = Annotated[int, parameter("", "groups", 1, 8192)]
Ratio = Annotated[float, parameter("hidden channels over input channels", "times", 0.1, 32)]
Switch = Annotated[int, parameter("0: off, 1: on", "", 0, 1)]
Flag = Annotated[bool, parameter("")]
Activation = Annotated[
    Literal["ReLU", "ReLU6", "HardSwish", "HardSigmoid", "SiLU", "Swish", "Sigmoid"] | None,
    parameter("null: none"),
]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": lambda: nn.ReLU(inplace=True),
    "ReLU6": lambda: nn.ReLU6(inplace=True),
    "HardSwish": nn.Hardswish,
    "HardSigmoid": nn.Hardsigmoid,
    "SiLU": nn.SiLU,
    "Swish": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


def make_divisible(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8 and never below 90 % of `channels`.

    Source: `_make_divisible` of the MobileNet reference implementation (TensorFlow models).
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def activation(name: str | None) -> list[nn.Module]:
    """Return the activation of that name as a list of one, or no layer for None."""
    return [] if name is None else [ACTIVATIONS[name]()]


def conv_bn(
    c_in: int,
    c_out: int,
    k: int = 1,
    s: int = 1,
    p: int | None = None,
    *,
    groups: int = 1,
    act: str | None = None,
) -> list[nn.Module]:
    """Return a k x k convolution, its batch norm, and its activation if there is one.

    `p` is the padding on each side; None is k // 2, which keeps the size at stride 1.
    """
    padding = k // 2 if p is None else p
    conv = nn.Conv2d(c_in, c_out, k, s, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out), *activation(act)]


class Mean(nn.Module):
    """The mean of each map; no module of the rule's list, so it counts 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return means (B, C, 1, 1) of x (B, C, H, W)."""
        return x.mean((2, 3), keepdim=True)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the channel means.

    Hu et al., "Squeeze-and-Excitation Networks" (CVPR 2018). `pool` takes the means by an
    nn.AdaptiveAvgPool2d, which the rule counts: the course's blocks differ in this.
    """

    def __init__(self, c: int, squeezed: int, act: str, gate: str, pool: bool) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1) if pool else Mean()
        reduce, expand = nn.Conv2d(c, squeezed, 1), nn.Conv2d(squeezed, c, 1)
        self.gate = nn.Sequential(reduce, *activation(act), expand, *activation(gate))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W) scaled by gates (B, C, 1, 1)."""
        gates: Tensor = self.gate(self.pool(x))
        return x * gates


def interleave(a: Tensor, b: Tensor) -> Tensor:
    """Return the channels of a and b (B, C, H, W) alternating, (B, 2C, H, W).

    It is the channel shuffle of their concatenation in two groups (Ma et al., ShuffleNet V2).
    """
    channels, *sides = map(int, a.shape[1:])  # plain integers are constants in an exported graph
    return torch.stack((a, b), dim=2).reshape(-1, 2 * channels, *sides)


fx.wrap("interleave")  # its sizes are integers, which torch.fx has none of


class Block(nn.Module):
    """Maps (B, C, H, W) to maps, or to features (B, F)."""

    stride_on: ClassVar[Literal["first", "last"]] = "first"

    @classmethod
    def repeats(cls, channels: int, args: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """Return the arguments of each of `count` repeats: only one of them has the stride."""
        if "s" not in args:
            return [args] * count
        plain = [args | {"s": 1}] * (count - 1)
        return [args, *plain] if cls.stride_on == "first" else [*plain, args]


class Chain(Block):
    """A block that is a sequence of layers, with the input added where `identity` is set."""

    def __init__(self, *layers: nn.Module, identity: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(*layers)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """Return the layers' output, plus x for an identity block."""
        y: Tensor = self.conv(x)
        return x + y if self.identity else y


class Conv(Chain):
    """Convolution, batch norm, activation; the stride goes on the last repeat."""

    stride_on = "last"

    def __init__(
        self,
        channels: int,
        c: Channels,
        k: Kernel = 1,
        s: WideStride = 1,
        p: Padding = None,
        g: Groups = 1,
        act: Activation = "ReLU",
    ) -> None:
        if channels % g or c % g:
            raise ValueError(f"{g} groups divide neither {channels} inputs nor {c} outputs evenly")
        super().__init__(*conv_bn(channels, c, k, s, p, groups=g, act=act))


class FixedConv(Conv):
    """A Conv whose channels the width leaves alone."""

    def __init__(
        self,
        channels: int,
        c: FixedChannels,
        k: Kernel = 1,
        s: WideStride = 1,
        p: Padding = None,
        g: Groups = 1,
        act: Activation = "ReLU",
    ) -> None:
        super().__init__(channels, c, k, s, p, g, act)


class DWConv(Chain):
    """A Conv in as many groups as inputs and outputs share."""

    stride_on = "last"

    def __init__(
        self,
        channels: int,
        c: Channels,
        k: Kernel = 1,
        s: WideStride = 1,
        p: Padding = None,
        act: Activation = "ReLU",
    ) -> None:
        super().__init__(*conv_bn(channels, c, k, s, p, groups=math.gcd(channels, c), act=act))


class Bottleneck(Chain):
    """1 x 1 to a share of the outputs, then 3 x 3; only the last repeat changes the channels."""

    def __init__(
        self,
        channels: int,
        c: Channels,
        shortcut: Flag = True,
        g: Groups = 1,
        t: Ratio = 0.5,
        act: Activation = "ReLU",
    ) -> None:
        hidden = max(1, int(c * t))
        if hidden % g or c % g:
            raise ValueError(f"{g} groups divide neither {hidden} inputs nor {c} outputs evenly")
        reduce, spread = (
            conv_bn(channels, hidden, act=act),
            conv_bn(hidden, c, 3, groups=g, act=act),
        )
        super().__init__(*reduce, *spread, identity=shortcut and channels == c)

    @classmethod
    def repeats(cls, channels: int, args: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """Return the arguments of each repeat: all but the last keep the input's channels."""
        return [*[args | {"c": channels}] * (count - 1), args]


class Linear(Chain):
    """Features (B, F) to outputs (B, c)."""

    def __init__(self, channels: int, c: FixedChannels, act: Activation = None) -> None:
        super().__init__(nn.Linear(channels, c), *activation(act))


class Flatten(Chain):
    """Maps (B, C, H, W) to features (B, C * H * W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Flatten())


class MaxPool(Chain):
    """The largest of each k x k window."""

    def __init__(
        self, channels: int, k: Kernel, stride: OptionalStride = None, p: Padding = 0
    ) -> None:
        super().__init__(nn.MaxPool2d(k, stride, k // 2 if p is None else p))


class AvgPool(Chain):
    """The mean of each k x k window."""

    def __init__(
        self, channels: int, k: Kernel, stride: OptionalStride = None, p: Padding = 0
    ) -> None:
        super().__init__(nn.AvgPool2d(k, stride, k // 2 if p is None else p))


class GlobalAvgPool(Chain):
    """The mean of each map, (B, C, 1, 1); 0 MACs, as the course's own subclass counted."""

    def __init__(self, channels: int) -> None:
        super().__init__(Mean())


class InvertedResidualv2(Chain):
    """Expand, 3 x 3 depthwise, project (Sandler et al., MobileNetV2, CVPR 2018)."""

    def __init__(self, channels: int, c: Channels, t: Ratio, s: Stride = 1) -> None:
        hidden = max(1, round(channels * t))
        expand = conv_bn(channels, hidden, act="ReLU6") if t != 1 else []
        depthwise = conv_bn(hidden, hidden, 3, s, groups=hidden, act="ReLU6")
        project = conv_bn(hidden, c)
        super().__init__(*expand, *depthwise, *project, identity=s == 1 and channels == c)


class InvertedResidualv3(Chain):
    """The same with squeeze-excite and h-swish (Howard et al., MobileNetV3, ICCV 2019)."""

    def __init__(
        self,
        channels: int,
        k: Kernel,
        t: Ratio,
        c: Channels,
        se: Switch,
        hs: Switch,
        s: Stride = 1,
    ) -> None:
        hidden, act = make_divisible(channels * t), "HardSwish" if hs else "ReLU"
        squeeze = make_divisible(hidden // 4)
        gate = [SqueezeExcitation(hidden, squeeze, "ReLU", "HardSigmoid", pool=False)] if se else []
        expand = conv_bn(channels, hidden, act=act) if channels != hidden else []
        depthwise = conv_bn(hidden, hidden, k, s, (k - 1) // 2, groups=hidden)
        middle = [*gate, *activation(act)] if expand else [*activation(act), *gate]
        layers = [*expand, *depthwise, *middle, *conv_bn(hidden, c)]
        super().__init__(*layers, identity=s == 1 and channels == c)


class MBConv(Chain):
    """The same with SiLU and a gate on every block (Tan and Le, EfficientNet, ICML 2019).

    Padding is TensorFlow's "same": with stride 2 the odd pixel goes right and below, which on odd
    maps gives a smaller output than k // 2 on each side.
    """

    def __init__(self, channels: int, t: Ratio, c: Channels, s: Stride = 1, k: Kernel = 3) -> None:
        hidden, total = max(1, int(channels * t)), max(k - s, 0)
        before, after = total // 2, total - total // 2
        even = before == after
        pad = [] if even else [nn.ZeroPad2d((before, after, before, after))]
        expand = conv_bn(channels, hidden, act="SiLU") if hidden != channels else []
        depthwise = conv_bn(hidden, hidden, k, s, before if even else 0, groups=hidden, act="SiLU")
        gate = SqueezeExcitation(hidden, max(1, channels // 4), "SiLU", "Sigmoid", pool=True)
        layers = [*expand, *pad, *depthwise, gate, *conv_bn(hidden, c)]
        super().__init__(*layers, identity=s == 1 and channels == c)


class FusedMBConv(Chain):
    """One k x k convolution expands, one 1 x 1 projects (Tan and Le, EfficientNetV2, ICML 2021)."""

    def __init__(self, channels: int, t: Ratio, c: Channels, s: Stride = 1, k: Kernel = 3) -> None:
        hidden = max(1, int(channels * t))
        single = conv_bn(channels, c, k, s, act="SiLU")
        double = [*conv_bn(channels, hidden, k, s, act="SiLU"), *conv_bn(hidden, c)]
        super().__init__(*(single if t == 1 else double), identity=s == 1 and channels == c)


class ShuffleNetV2(Block):
    """Half the channels pass, half are convolved, both interleaved; stride 2 doubles the channels.

    Ma et al., "ShuffleNet V2" (ECCV 2018).
    """

    def __init__(self, channels: int, s: Stride = 1) -> None:
        super().__init__()
        if s == 1 and channels % 2:
            raise ValueError(f"its {channels} input channels do not halve")
        self.halve, half = s == 1, channels // 2 if s == 1 else channels
        self.sizes = [half, half]
        down = [*conv_bn(half, half, 3, s, groups=half), *conv_bn(half, half, act="ReLU")]
        self.branch1 = nn.Sequential(*([] if self.halve else down))
        expand, depthwise = conv_bn(half, half, act="ReLU"), conv_bn(half, half, 3, s, groups=half)
        self.branch2 = nn.Sequential(*expand, *depthwise, *conv_bn(half, half, act="ReLU"))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, C * s, H / s, W / s)."""
        a, b = torch.split(x, self.sizes, dim=1) if self.halve else (self.branch1(x), x)
        return interleave(a, self.branch2(b))


class MixedDepthwise(nn.Module):
    """A depthwise convolution and batch norm whose channel groups have kernels of several sides."""

    def __init__(self, c: int, kernels: tuple[int, ...], s: int) -> None:
        super().__init__()
        small = c // len(kernels)
        self.sizes = [c - small * (len(kernels) - 1), *[small] * (len(kernels) - 1)]
        groups = zip(self.sizes, kernels, strict=True)
        self.groups = nn.ModuleList(
            nn.Sequential(*conv_bn(n, n, k, s, groups=n)) for n, k in groups
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, C, H / s, W / s)."""
        parts = torch.split(x, self.sizes, dim=1)
        return torch.cat([group(parts[i]) for i, group in enumerate(self.groups)], 1)


class MixNetBlock(Chain):
    """Expand, mixed depthwise, gate, project (Tan and Le, MixConv, BMVC 2019)."""

    def __init__(
        self,
        channels: int,
        kernels: Kernels,
        t: Ratio,
        c: Channels,
        se: Switch,
        s: Stride = 1,
        act: Activation = "ReLU",
    ) -> None:
        hidden = max(1, int(channels * t))
        if not 1 <= len(kernels) <= hidden:
            raise ValueError(f"{len(kernels)} kernels do not share {hidden} channels")
        expand = conv_bn(channels, hidden, act=act) if t != 1 else []
        squeezed = make_divisible(channels // 4)
        gate = [SqueezeExcitation(hidden, squeezed, "SiLU", "Sigmoid", pool=False)] if se else []
        middle = [MixedDepthwise(hidden, kernels, s), *activation(act), *gate]
        layers = [*expand, *middle, *conv_bn(hidden, c)]
        super().__init__(*layers, identity=s == 1 and channels == c)


BLOCKS: dict[str, type[Block]] = {
    "Conv": Conv,
    "FixedConv": FixedConv,
    "DWConv": DWConv,
    "Bottleneck": Bottleneck,
    "InvertedResidualv2": InvertedResidualv2,
    "InvertedResidualv3": InvertedResidualv3,
    "MBConv": MBConv,
    "FusedMBConv": FusedMBConv,
    "ShuffleNetV2": ShuffleNetV2,
    "MixNetBlock": MixNetBlock,
    "Linear": Linear,
    "Flatten": Flatten,
    "MaxPool": MaxPool,
    "AvgPool": AvgPool,
    "GlobalAvgPool": GlobalAvgPool,
}
