"""Hidden channels cut by the scale of their batch norm, and the rows rewritten to match.

A hidden width is a block's argument t (hidden over input channels); its channels are those between
the expansion and the projection. The ones whose norm has the smallest |gamma| go (Liu et al.,
"Learning efficient convolutional networks through network slimming", ICCV 2017), and with them
their rows and columns in every weight of the block.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt
from torch import nn

from weighin.compress.store import Trained
from weighin.errors import NetworkError
from weighin.network.blocks import BLOCKS, Chain
from weighin.network.build import build
from weighin.network.layers import SqueezeExcitation
from weighin.network.spec import NetworkSpec, Row
from weighin.training.weights import module_weights

Index = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[np.float32]]
LEAST = 0.1  # of t, as rows allow


def narrower(
    network: Trained, share: float, classes: int, whole: NetworkSpec | None = None
) -> Trained:
    """Return the network with `share` of every hidden width gone, where that is possible.

    The share is of the widths of `whole`, the same rows before earlier cuts (the network's own).
    Widths round as their blocks round them. Rows stay as they are if their blocks have no hidden
    width, have one that rounds to the same, are grouped, or would be built of other layers.
    """
    for number, row in enumerate((whole or network.spec).rows):
        fewer = _fewer(row, share)
        if fewer is not None:
            network = _with_row(network, number, fewer, classes) or network
    return network


def _fewer(row: Row, share: float) -> Row | None:
    """Return the row with a smaller t, or None if it has none to make smaller."""
    names = list(inspect.signature(BLOCKS[row.block].__init__).parameters)[2:]
    if "t" not in names[: len(row.args)]:
        return None
    args, at = list(row.args), names.index("t")
    args[at] = max(LEAST, round(args[at] * (1 - share), 4))
    return replace(row, args=tuple(args))


def _with_row(network: Trained, number: int, row: Row, classes: int) -> Trained | None:
    """Return the network with another row in that place, or None if its weights do not follow."""
    rows = (*network.spec.rows[:number], row, *network.spec.rows[number + 1 :])
    spec = replace(network.spec, rows=rows)
    try:
        new = build(spec, classes)
    except NetworkError:  # its groups do not divide that width
        return None
    old = network.module(classes)
    weights = dict(network.weights)
    for repeat in range(row.repeats):
        path = f"{number}.{repeat}"
        kept = _kept(old.get_submodule(path), new.get_submodule(path))
        if kept is None:
            return None
        weights |= {f"{path}.{name}": array for name, array in kept.items()}
    return Trained(spec, weights)


def _kept(old: nn.Module, new: nn.Module) -> Arrays | None:
    """Return the weights of the block `new`, taken from the wider `old`; None if none follow."""
    if not isinstance(old, Chain) or not isinstance(new, Chain) or not _follows(old, new):
        return None
    first = next(layer for layer in old.conv if isinstance(layer, nn.Conv2d))
    weights: Arrays = {}
    channels = np.arange(first.in_channels)
    for at, (source, target) in enumerate(zip(old.conv, new.conv, strict=True)):
        arrays = module_weights(source)
        if isinstance(source, SqueezeExcitation):
            arrays = _gate(arrays, _squeezed(target), channels)
        elif isinstance(target, nn.Conv2d) and target.groups == 1:
            out = strongest(_scales(list(old.conv)[at + 1 :]), target.out_channels)
            arrays, channels = {"weight": arrays["weight"][out][:, channels]}, out
        else:  # a depthwise convolution or a norm: one entry a channel
            arrays = {name: array[channels] for name, array in arrays.items()}
        weights |= {f"conv.{at}.{name}": array for name, array in arrays.items()}
    return weights


def _follows(old: Chain, new: Chain) -> bool:
    """Whether the blocks differ in widths alone, of layers whose channels can be followed."""
    kinds = [[type(layer) for layer in block.conv] for block in (old, new)]
    shapes = [{k: v.shape for k, v in module_weights(block).items()} for block in (old, new)]
    return kinds[0] == kinds[1] and shapes[0] != shapes[1] and all(map(_followed, old.conv))


def _followed(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups in (1, layer.out_channels) and layer.bias is None
    known = isinstance(layer, nn.BatchNorm2d | SqueezeExcitation)
    return known or not list(layer.parameters())


def strongest(scales: Numbers, count: int) -> Index:
    """Return the `count` channels of the largest scale, in their own order."""
    return np.sort(np.argsort(-scales, kind="stable")[:count])


def _scales(layers: Sequence[nn.Module]) -> Numbers:
    """Return |gamma| of the last norm before the next convolution that mixes channels."""

    def mixes(layer: nn.Module) -> bool:
        return isinstance(layer, nn.Conv2d) and layer.groups == 1

    mine = takewhile(lambda layer: not mixes(layer), layers)
    norms = [layer for layer in mine if isinstance(layer, nn.BatchNorm2d)]
    return np.abs(module_weights(norms[-1])["weight"])


def _squeezed(gate: nn.Module) -> int:
    return next(part.out_channels for part in gate.modules() if isinstance(part, nn.Conv2d))


def _gate(arrays: Arrays, squeezed: int, channels: Index) -> Arrays:
    """Return a squeeze-excite's weights; of its own channels, those of the largest rows stay."""
    reduce, expand = sorted({name.rpartition(".")[0] for name in arrays})
    rows = arrays[f"{reduce}.weight"]
    kept = strongest(np.linalg.norm(rows.reshape(len(rows), -1), axis=1), squeezed)
    return {
        f"{reduce}.weight": rows[kept][:, channels],
        f"{reduce}.bias": arrays[f"{reduce}.bias"][kept],
        f"{expand}.weight": arrays[f"{expand}.weight"][channels][:, kept],
        f"{expand}.bias": arrays[f"{expand}.bias"][channels],
    }
