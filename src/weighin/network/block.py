"""What a block is, and the kinds of arguments that a row can give it.

A block's `__init__` is its row's signature: the input's channels first, then the row's arguments,
whose annotations carry type and range. `Channels` are scaled by the network's width, and a stride
called `s` belongs to one repeat (`stride_on`).
"""

from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor, nn

from weighin.network.layers import ACTIVATIONS
from weighin.schema import Knob

Channels = Annotated[int, Knob("output channels, times the width, to a multiple of 8", "", 1, 8192)]
FixedChannels = Annotated[int, Knob("outputs, whatever the width", "", 1, 100_000)]
Kernel = Annotated[int, Knob("side of the kernel", "pixels", 1, 31)]
Kernels = Annotated[tuple[int, ...], Knob("sides of the kernels, one a group", "pixels", 1, 31)]
Stride = Annotated[int, Knob("", "pixels", 1, 2)]
WideStride = Annotated[int, Knob("", "pixels", 1, 8)]
OptionalStride = Annotated[int | None, Knob("null: the kernel's side", "pixels", 1, 8)]
Padding = Annotated[int | None, Knob("null: half the kernel", "pixels", 0, 15)]
Groups = Annotated[int, Knob("", "groups", 1, 8192)]
Ratio = Annotated[float, Knob("hidden channels over input channels", "times", 0.1, 32)]
Switch = Annotated[int, Knob("0: off, 1: on", "", 0, 1)]
Flag = Annotated[bool, Knob("")]
Activation = Annotated[str | None, Knob("", choices=tuple(ACTIVATIONS))]


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
