"""Every block that a row can name. A new one is a class like these and a line in `BLOCKS`.

Blocks and argument order are those of the course that the contest came with; counts of whole
networks made of them are pinned in tests/network/test_macs.py.
"""

import math
from typing import Any

from torch import nn

from weighin.network.block import (
    Activation,
    Block,
    Chain,
    Channels,
    FixedChannels,
    Flag,
    Groups,
    Kernel,
    OptionalStride,
    Padding,
    Ratio,
    WideStride,
)
from weighin.network.layers import Mean, activation, conv_bn
from weighin.network.residual import (
    FusedMBConv,
    InvertedResidualv2,
    InvertedResidualv3,
    MBConv,
    MixNetBlock,
    ShuffleNetV2,
)


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
        super().__init__(*conv_bn(channels, c, k, s, p, g, act))


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
        super().__init__(*conv_bn(channels, c, k, s, p, math.gcd(channels, c), act))


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
        reduce, spread = conv_bn(channels, hidden, act=act), conv_bn(hidden, c, 3, 1, None, g, act)
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
