"""The calls of a training step: which kernels run on which addresses, noted once."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

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

    def __init__(self, step: Step, shape: torch.Size) -> None:
        self.images = dense_maps(*shape)
        self.grads: dict[Tensor, Tensor] = {}
        self.forward: list[Callable[[], Any]] = []
        self.backward: list[Callable[[], Any]] = []
        self.kept: list[Tensor] = []  # maps are kept by their addresses alone otherwise
        self.free: dict[int, list[Tensor]] = defaultdict(list)
        self.calls, self.runs = self.forward, 0
        self.logits, back = step(self.images, self)
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
        found = dense_maps(*shape)
        free = self.free[found.numel()]
        return free.pop().as_strided(found.shape, found.stride()) if free else found

    def give_back(self, maps: Tensor) -> None:
        """Let later maps of the backward pass have this one's memory."""
        self.free[maps.numel()].append(maps)


def dense_maps(*shape: int) -> Tensor:
    """Return new maps that lie channels last."""
    return torch.empty(shape, memory_format=torch.channels_last)
