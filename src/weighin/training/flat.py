"""A network's numbers in three flat vectors, so that a step is a handful of kernels.

Weights, gradients and batch-norm statistics are views into one vector each: clearing, summing over
shards, averaging, stepping and saving touch three tensors whatever the number of layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weighin.training.weights import head_name

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class FlatModule:
    """A module whose parameters and batch-norm statistics live in flat vectors.

    weights (P,) holds first the decayed parameters, then those that are not (norms, biases), then
    the frozen ones; grads (T,) covers the first two; statistics (Q,) holds running means and
    variances. Convolution weights lie in channels-last order. `parameters` are the trained ones, in
    the order of grads.
    """

    def __init__(self, module: nn.Module, freeze: str = "nothing") -> None:
        self.module = module.to(memory_format=torch.channels_last)
        named = dict(module.named_parameters())
        groups = _groups(module, freeze)
        order = sorted(named, key=lambda name: groups[name])  # stable: the module's own order
        sizes = [sum(named[n].numel() for n in order if groups[n] == g) for g in range(3)]
        self.decayed, self.trained = sizes[0], sizes[0] + sizes[1]
        self.weights = next(iter(named.values())).new_zeros(sum(sizes))
        self.grads = self.weights.new_zeros(self.trained)
        self.parameters = [named[name] for name in order if groups[name] < 2]
        views = _views(self.weights, [named[name] for name in order])
        for name, view in zip(order, views, strict=True):
            view.copy_(named[name].data)
            named[name].data = view
            named[name].requires_grad_(groups[name] < 2)
        self.statistics = self._adopt_statistics()

    @property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """The weights and the statistics: what a copy of the network needs."""
        return self.weights, self.statistics

    def copy_(self, vectors: Sequence[Tensor]) -> None:
        """Take the values of other weights and statistics."""
        for own, other in zip(self.vectors, vectors, strict=True):
            own.copy_(other)

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector (T,) in the shapes and order of `parameters`."""
        return _views(vector, self.parameters)

    def _adopt_statistics(self) -> Tensor:
        norms = [m for m in self.module.modules() if isinstance(m, NORMS) and m.track_running_stats]
        names = [(norm, name) for norm in norms for name in ("running_mean", "running_var")]
        parts = [getattr(norm, name) for norm, name in names]
        flat = torch.cat([*parts, self.weights.new_zeros(0)])
        for (norm, name), view in zip(names, _views(flat, parts), strict=True):
            norm.num_batches_tracked = None  # momentum is fixed: the counter serves nobody
            setattr(norm, name, view)
        return flat


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    shaped = []
    for part, shape in zip(parts, [tensor.shape for tensor in like], strict=True):
        if len(shape) == 4:
            out, into, height, width = shape
            shaped.append(part.view(out, height, width, into).permute(0, 3, 1, 2))
        else:
            shaped.append(part.view(shape))
    return shaped


def _groups(module: nn.Module, freeze: str) -> dict[str, int]:
    """Return 0 for each decayed parameter, 1 for an undecayed one, 2 for a frozen one."""
    layers = dict(module.named_modules())
    head = head_name(module)
    groups = {}
    for name, parameter in module.named_parameters():
        owner = name.rpartition(".")[0]
        kept = {
            "nothing": True,
            "all-but-convolutions": isinstance(layers[owner], nn.Conv2d),
            "all-but-norms-and-head": owner == head or isinstance(layers[owner], NORMS),
        }
        groups[name] = (0 if parameter.ndim > 1 else 1) if kept[freeze] else 2
    return groups
