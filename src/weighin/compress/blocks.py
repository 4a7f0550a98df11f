"""Whole blocks cut out of a network's rows: what is left is an ordinary, smaller network.

A block can go if it gives maps of the shape that it takes, and if without it every other block is
built as it was: then each keeps its weights under its new path.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from weighin.compress.store import Trained
from weighin.network.build import structure
from weighin.network.cost import folded_macs
from weighin.network.macs import blank_image, evaluating
from weighin.network.spec import NetworkSpec

Place = tuple[int, int]  # (row, repeat), from 0


@dataclass(frozen=True)
class BlockCut:
    """A block that can go, and the rows without it."""

    place: Place
    name: str  # as a person counts: `row 5 (ShuffleNetV2), repeat 2`
    spec: NetworkSpec

    def apply(self, network: Trained) -> Trained:
        """Return the network without the block, every other one with its weights."""
        weights = {
            moved: array
            for path, array in network.weights.items()
            if (moved := _moved(path, self.place, self._row_stays(network.spec))) is not None
        }
        return Trained(self.spec, weights)

    def _row_stays(self, spec: NetworkSpec) -> bool:
        return spec.rows[self.place[0]].repeats > 1


def block_cuts(spec: NetworkSpec, classes: int) -> list[BlockCut]:
    """Return every block that can go and costs MACs, in the network's order.

    Raises:
        NetworkError: the rows do not make a network.
    """
    whole = structure(spec, classes)
    macs = folded_macs(spec, classes)
    cuts = (_cut(spec, place) for place in _keeping_shape(whole, spec))
    fitting = (cut for cut in cuts if _fits(cut, spec, whole, classes))
    return [cut for cut in fitting if folded_macs(cut.spec, classes) < macs]


def _cut(spec: NetworkSpec, place: Place) -> BlockCut:
    number, repeat = place
    row = spec.rows[number]
    fewer = [replace(row, repeats=row.repeats - 1)] if row.repeats > 1 else []
    rows = (*spec.rows[:number], *fewer, *spec.rows[number + 1 :])
    name = f"row {number + 1} ({row.block}), repeat {repeat + 1}"
    return BlockCut(place, name, replace(spec, rows=rows))


def _keeping_shape(module: nn.Sequential, spec: NetworkSpec) -> Iterator[Place]:
    """Yield the places whose block gives the shape that it takes."""
    x = blank_image(module, spec.input)
    with evaluating(module), torch.no_grad():
        for number in range(len(spec.rows)):
            for repeat, block in enumerate(module.get_submodule(str(number)).children()):
                y = block(x)
                if y.shape == x.shape:
                    yield number, repeat
                x = y


def _fits(cut: BlockCut, spec: NetworkSpec, whole: nn.Sequential, classes: int) -> bool:
    """Whether every block that is left is built as it was, strides and all."""
    stays = spec.rows[cut.place[0]].repeats > 1
    before = {
        moved: repr(block)
        for path, block in _blocks(whole)
        if (moved := _moved(path, cut.place, stays)) is not None
    }
    return before == {path: repr(block) for path, block in _blocks(structure(cut.spec, classes))}


def _blocks(module: nn.Sequential) -> Iterator[tuple[str, nn.Module]]:
    for number, row in module.named_children():
        for repeat, block in row.named_children():
            yield f"{number}.{repeat}", block


def _moved(path: str, place: Place, row_stays: bool) -> str | None:
    """Return where a path goes when the block at `place` goes; None for that block's own."""
    head, repeat, *rest = path.split(".")
    number, at = int(head), int(repeat)
    if (number, at) == place:
        return None
    if row_stays and number == place[0] and at > place[1]:
        at -= 1
    if not row_stays and number > place[0]:
        number -= 1
    return ".".join([str(number), str(at), *rest])
