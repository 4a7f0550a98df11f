"""Blocks of the mobile networks: inverted residuals, shuffle units and their kin."""

import torch
from torch import Tensor, fx, nn

from weighin.network.block import (
    Activation,
    Block,
    Chain,
    Channels,
    Kernel,
    Kernels,
    Ratio,
    Stride,
    Switch,
)
from weighin.network.layers import (
    SqueezeExcitation,
    activation,
    conv_bn,
    interleave,
    make_divisible,
)

fx.wrap("interleave")  # its sizes are integers, which torch.fx has none of


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
        depthwise = conv_bn(hidden, hidden, k, s, before if even else 0, hidden, "SiLU")
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
