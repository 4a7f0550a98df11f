"""A network's numbers in three flat vectors, so that a step is a handful of kernels.

Weights, gradients and batch-norm statistics are views into one vector each: clearing, summing over
shards, averaging, stepping and saving touch three tensors whatever the number of layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class FlatModule:
    """A module whose parameters and batch-norm statistics live in flat vectors.

    weights (P,) holds first the decayed parameters, then those that are not (norms, biases), then
    the frozen ones; grads (P',) covers the first two; statistics (Q,) holds running means and
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
        self.weights = torch.zeros(sum(sizes))
        self.grads = torch.zeros(self.trained)
        self.parameters = [named[name] for name in order if groups[name] < 2]
        every = [named[name] for name in order]
        for parameter, view in zip(every, _views(self.weights, every), strict=True):
            view.copy_(parameter.data)
            parameter.data = view
            parameter.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.statistics = self._adopt_statistics()

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector (P',) in the shapes and order of `parameters`."""
        return _views(vector, self.parameters)

    def _adopt_statistics(self) -> Tensor:
        norms = [m for m in self.module.modules() if isinstance(m, NORMS) and m.track_running_stats]
        flat = torch.zeros(sum(2 * m.num_features for m in norms))
        at = 0
        for norm in norms:
            norm.num_batches_tracked = None  # momentum is fixed: the counter serves nobody
            for name in ("running_mean", "running_var"):
                view = flat[at : at + norm.num_features]
                view.copy_(getattr(norm, name))
                setattr(norm, name, view)
                at += norm.num_features
        return flat


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return [_shaped(part, tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def _shaped(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return flat.view(shape)
    out, into, height, width = shape
    return flat.view(out, height, width, into).permute(0, 3, 1, 2)


def _groups(module: nn.Module, freeze: str) -> dict[str, int]:
    """Return 0 for each decayed parameter, 1 for an undecayed one, 2 for a frozen one."""
    layers = dict(module.named_modules())
    head = [name for name, m in layers.items() if isinstance(m, nn.Conv2d | nn.Linear)][-1]
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
