"""Prunes a trained network, block by block and channel by channel, while its score falls.

What is left is an ordinary, smaller network. After each step it is trained for
`decompose.prune_epochs`, with the unpruned one for a teacher; the step stays if the contest's score
on the validation split has fallen, and the first one that does not pay is the last. So the best
documented team of the contest went from 4-8-4 blocks to 2-5-2.

Blocks: one can go if it gives maps of the shape that it takes, and if without it every other block
is built as it was: then each keeps its weights under its new path.

Channels: a hidden width is a block's argument t (hidden over input channels); its channels are
those between the expansion and the projection. The ones whose norm has the smallest |gamma| go (Liu
et al., "Learning efficient convolutional networks through network slimming", ICCV 2017), and with
them their rows and columns in every weight of the block.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from weighin.compress.context import CompressionContext, Probe
from weighin.data.pack import read_packed
from weighin.errors import NetworkError
from weighin.grading.score import confusion_of_indices
from weighin.network.blocks import BLOCKS, Chain, SqueezeExcitation
from weighin.network.build import blank_image, build, evaluating, structure
from weighin.network.cost import folded_macs
from weighin.network.spec import NetworkSpec, Row
from weighin.progress import say
from weighin.training.device import require_device
from weighin.training.weights import Trained, module_weights

Index = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[np.float32]]
Proposal = tuple[Trained, str]  # a smaller network, and what went

RATE = 0.2  # of the recipe's peak: a network that is nearly right needs no more
DISTILLATION = 1.0  # weight of the teacher's labels
STEPS = 4  # in which the channels go
LEAST = 0.1  # of t, as rows allow


def prune(context: CompressionContext) -> Trained:
    """Return the trained network without the blocks and channels that `decompose` says.

    Raises:
        MachineError: the recipe's device is not here.
        WorkerError, OutputError: run again, it goes on from the last finished epoch.
    """
    knobs, network = context.params.decompose, context.trained
    if not knobs.prune_blocks and not knobs.prune_channels:
        return network
    require_device(context.recipe)
    score, n = _untrained_score(context, network), context.classes
    blocks = min(knobs.prune_blocks, sum(row.repeats for row in network.spec.rows))

    def without_block(network: Trained, number: int) -> Proposal | None:
        """Return the network without the block whose loss costs least before any training."""
        found = [(block.remove(network), block.name) for block in removable_blocks(network.spec, n)]
        return min(found, key=lambda one: _untrained_score(context, one[0]), default=None)

    def without_channels(network: Trained, number: int) -> Proposal | None:
        """Return the network with so many steps of its hidden channels gone, if any go."""
        share = knobs.prune_channels * number / STEPS
        smaller = narrower(network, share, n, whole)
        if folded_macs(smaller.spec, n) >= folded_macs(network.spec, n):
            return None  # all widths round to what they are
        return smaller, f"{share:.0%} of the hidden channels"

    network, score = _while_it_pays(context, network, score, "block", blocks, without_block)
    whole = network.spec
    steps = STEPS if knobs.prune_channels else 0
    return _while_it_pays(context, network, score, "channels", steps, without_channels)[0]


def _while_it_pays(
    context: CompressionContext,
    network: Trained,
    score: float,
    kind: str,
    most: int,
    propose: Callable[[Trained, int], Proposal | None],
) -> tuple[Trained, float]:
    for number in range(1, most + 1):
        proposed = propose(network, number)
        if proposed is None:
            continue
        smaller, name = proposed
        tried, tried_score = _recovered(context, smaller, f"cut-{kind}-{number}")
        macs = folded_macs(smaller.spec, context.classes)
        verdict = "goes" if tried_score < score else "stays"
        say(f"prune  {name} {verdict}: score {score:.4f} -> {tried_score:.4f} at {macs:,} MACs")
        if tried_score >= score:
            break
        network, score = tried, tried_score
    return network, score


def _recovered(context: CompressionContext, network: Trained, name: str) -> tuple[Trained, float]:
    """Return a network trained on after a step, and its score."""
    epochs, recipe = context.params.decompose.prune_epochs, context.recipe
    if not epochs:
        return network, _untrained_score(context, network)
    result = context.train_on(network, name, RATE * recipe.lr, DISTILLATION, epochs=epochs)
    held = read_packed(context.packed, "validation", network.spec.input)
    found = confusion_of_indices(held.labels, result.logits.argmax(1), held.classes)
    trained = Trained(network.spec, result.weights)
    return trained, context.score(trained, found)


def _untrained_score(context: CompressionContext, network: Trained) -> float:
    probe = Probe(context.packed, network, context.params.seed)
    return context.score(network, probe.confusion())


@dataclass(frozen=True)
class RemovableBlock:
    """A block that can go, the rows without it, and where every other block goes then."""

    place: tuple[int, int]  # (row, repeat), from 0
    name: str  # as a person counts: `row 5 (ShuffleNetV2), repeat 2`
    spec: NetworkSpec
    moves: dict[str, str]  # `row.repeat`, before and after

    def remove(self, network: Trained) -> Trained:
        """Return the network without the block, every other one with its weights."""
        weights = {}
        for path, array in network.weights.items():
            row, repeat, rest = path.split(".", 2)
            if f"{row}.{repeat}" in self.moves:
                weights[f"{self.moves[f'{row}.{repeat}']}.{rest}"] = array
        return Trained(self.spec, weights)


def removable_blocks(spec: NetworkSpec, classes: int) -> list[RemovableBlock]:
    """Return every block that can go and costs MACs, in the network's order.

    Raises:
        NetworkError: the rows do not make a network.
    """
    whole, macs = structure(spec, classes), folded_macs(spec, classes)
    places = []
    x = blank_image(whole, spec.input)
    with evaluating(whole), torch.no_grad():
        for number in range(len(spec.rows)):
            for repeat, block in enumerate(whole.get_submodule(str(number)).children()):
                y = block(x)
                if y.shape == x.shape:
                    places.append((number, repeat))
                x = y
    found = [_without(spec, *place) for place in places]
    return [
        block
        for block in found
        if _builds_the_others(block, whole, classes) and folded_macs(block.spec, classes) < macs
    ]


def _without(spec: NetworkSpec, number: int, repeat: int) -> RemovableBlock:
    row = spec.rows[number]
    fewer = [replace(row, repeats=row.repeats - 1)] if row.repeats > 1 else []
    rows = (*spec.rows[:number], *fewer, *spec.rows[number + 1 :])
    before = [(i, j) for i, row in enumerate(spec.rows) for j in range(row.repeats)]
    before.remove((number, repeat))
    after = [(i, j) for i, row in enumerate(rows) for j in range(row.repeats)]
    moves = {f"{i}.{j}": f"{k}.{m}" for (i, j), (k, m) in zip(before, after, strict=True)}
    name = f"row {number + 1} ({row.block}), repeat {repeat + 1}"
    return RemovableBlock((number, repeat), name, replace(spec, rows=rows), moves)


def _builds_the_others(block: RemovableBlock, whole: nn.Module, classes: int) -> bool:
    """Whether every block that is left is built as it was, strides and all."""
    smaller = structure(block.spec, classes)
    return all(
        repr(whole.get_submodule(before)) == repr(smaller.get_submodule(after))
        for before, after in block.moves.items()
    )


def narrower(
    network: Trained, share: float, classes: int, whole: NetworkSpec | None = None
) -> Trained:
    """Return the network with `share` of every hidden width gone, where that is possible.

    The share is of the widths of `whole`, the same rows before earlier steps (the network's own).
    Widths round as their blocks round them. Rows stay as they are if their blocks have no hidden
    width, have one that rounds to the same, are grouped, or would be built of other layers.
    """
    for number, row in enumerate((whole or network.spec).rows):
        names = list(inspect.signature(BLOCKS[row.block].__init__).parameters)[2:]
        if "t" in names[: len(row.args)]:
            args, at = list(row.args), names.index("t")
            args[at] = max(LEAST, round(args[at] * (1 - share), 4))
            fewer = replace(row, args=tuple(args))
            network = _with_row(network, number, fewer, classes) or network
    return network


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
            arrays = _gate(arrays, target, channels)
        elif isinstance(target, nn.Conv2d) and target.groups == 1:
            out = strongest(_scales(list(old.conv)[at + 1 :]), target.out_channels)
            arrays, channels = {"weight": arrays["weight"][out][:, channels]}, out
        else:  # a depthwise convolution or a norm: one entry a channel
            arrays = {name: array[channels] for name, array in arrays.items()}
        weights |= {f"conv.{at}.{name}": array for name, array in arrays.items()}
    return weights


def _follows(old: Chain, new: Chain) -> bool:
    """Whether the blocks differ in widths alone, of layers whose channels can be followed."""

    def followed(layer: nn.Module) -> bool:
        if isinstance(layer, nn.Conv2d):
            return layer.groups in (1, layer.out_channels) and layer.bias is None
        known = isinstance(layer, nn.BatchNorm2d | SqueezeExcitation)
        return known or not list(layer.parameters())

    kinds = [[type(layer) for layer in block.conv] for block in (old, new)]
    shapes = [{k: v.shape for k, v in module_weights(block).items()} for block in (old, new)]
    return kinds[0] == kinds[1] and shapes[0] != shapes[1] and all(map(followed, old.conv))


def strongest(scales: npt.NDArray[np.float32], count: int) -> Index:
    """Return the `count` channels of the largest scale, in their own order."""
    return np.sort(np.argsort(-scales, kind="stable")[:count])


def _scales(layers: Sequence[nn.Module]) -> npt.NDArray[np.float32]:
    """Return |gamma| of the last norm before the next convolution that mixes channels."""

    def mixes(layer: nn.Module) -> bool:
        return isinstance(layer, nn.Conv2d) and layer.groups == 1

    mine = takewhile(lambda layer: not mixes(layer), layers)
    norms = [layer for layer in mine if isinstance(layer, nn.BatchNorm2d)]
    return np.abs(module_weights(norms[-1])["weight"])


def _gate(arrays: Arrays, target: nn.Module, channels: Index) -> Arrays:
    """Return a squeeze-excite's weights; of its own channels, those of the largest rows stay."""
    squeezed = next(part.out_channels for part in target.modules() if isinstance(part, nn.Conv2d))
    reduce, expand = sorted({name.rpartition(".")[0] for name in arrays})
    rows = arrays[f"{reduce}.weight"]
    kept = strongest(np.linalg.norm(rows.reshape(len(rows), -1), axis=1), squeezed)
    return {
        f"{reduce}.weight": rows[kept][:, channels],
        f"{reduce}.bias": arrays[f"{reduce}.bias"][kept],
        f"{expand}.weight": arrays[f"{expand}.weight"][channels][:, kept],
        f"{expand}.bias": arrays[f"{expand}.bias"][channels],
    }
