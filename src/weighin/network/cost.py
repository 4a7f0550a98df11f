"""What a network costs, known from its rows before it has a weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from torch import nn

from weighin.network.blocks import BLOCKS
from weighin.network.build import arguments, build, signature, structure
from weighin.network.export import fold_batch_norms
from weighin.network.factorized import Factorization
from weighin.network.macs import check_macs, count_macs, count_parameters, layer_macs
from weighin.network.spec import NetworkSpec, Row, read_spec, shipped

EXAMPLE_INPUT = (16, 32, 32)  # channels, rows, columns
EXAMPLE_ARGUMENTS = {"c": 24, "k": 3, "kernels": (3, 5), "t": 2, "se": 1, "hs": 1, "s": 2}


@dataclass(frozen=True)
class Cost:
    """MACs by the contest's rule and parameters of a network as it is exported, norms folded."""

    macs: int
    parameters: int


def cost(spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None) -> Cost:
    """Return what a network costs.

    Raises:
        NetworkError: the rows or ranks do not make a network.
    """
    folded = fold_batch_norms(structure(spec, classes, ranks))
    return Cost(count_macs(folded, spec.input), count_parameters(folded))


def folded_macs(
    spec: NetworkSpec, classes: int, ranks: Mapping[str, Factorization] | None = None
) -> int:
    """Return the MACs of `cost` alone."""
    return cost(spec, classes, ranks).macs


@dataclass(frozen=True)
class BlockExample:
    """One block that a row can name: what it is, its arguments, and a row with its MACs."""

    name: str
    summary: str
    arguments: str  # `[c, k=1, ...]`; those without a default are needed
    row: str
    macs: int  # of the row on EXAMPLE_INPUT


def block_examples() -> list[BlockExample]:
    """Return an example of each block, in the order of `BLOCKS`."""
    return [_example(name) for name in BLOCKS]


def _example(name: str) -> BlockExample:
    block, kinds = BLOCKS[name], arguments(BLOCKS[name])
    args = tuple(EXAMPLE_ARGUMENTS[key] for key in takewhile(EXAMPLE_ARGUMENTS.get, kinds))
    channels, *size = EXAMPLE_INPUT
    module: nn.Module = block(channels, *args)
    if name == "Linear":  # takes features
        module, size = nn.Sequential(nn.Flatten(), module), [1, 1]
    macs = count_macs(module, (size[0], size[1]), channels)
    summary = (block.__doc__ or "").partition("\n")[0]
    return BlockExample(name, summary, signature(kinds), str(Row(1, name, args)), macs)


def cost_table(path: Path, classes: int, layers: bool) -> list[str]:
    """Return the lines that `weighin count` prints of a rows file, or of one that is shipped.

    Raises:
        NetworkError: the rows do not make a network.
        HiddenWorkError: as `check_macs`.
    """
    spec = read_spec(shipped(str(path)) if shipped(str(path)).exists() else path)
    module = build(spec, classes)
    by_ptflops = check_macs(module, spec.input)
    listed = layer_macs(module, spec.input) if layers else []
    lines = [f"{found.macs:>12,}  {found.kind:<18} {found.path}" for found in listed]
    return [
        *lines,
        f"{count_macs(module, spec.input):,} MACs, {count_parameters(module):,} parameters",
        f"{count_macs(fold_batch_norms(module), spec.input):,} MACs with its batch norms folded",
        f"{by_ptflops:,} MACs of convolutions and linear layers by ptflops",
    ]
