"""The pieces that blocks are made of: channel rounding, activations, Conv-BN and squeeze-excite.

Shape letters: B images, C channels, H rows, W columns. A convolution that a batch norm follows has
no bias, since the norm would cancel it. Only exact torch.nn types are used for anything that the
MAC rule counts: it does not see subclasses.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

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
