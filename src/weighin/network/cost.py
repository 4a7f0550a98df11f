"""What a network costs, known from its rows before it has a weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weighin.network.build import build, structure
from weighin.network.factorized import Factorization
from weighin.network.folding import fold_batch_norms
from weighin.network.mac_check import check_macs
from weighin.network.macs import count_macs, count_parameters, layer_macs
from weighin.network.spec import NetworkSpec, read_spec


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


def cost_table(path: Path, classes: int, layers: bool) -> list[str]:
    """Return the lines that `weighin count` prints of a rows file.

    Raises:
        NetworkError: the rows do not make a network.
        HiddenWorkError: as `check_macs`.
    """
    spec = read_spec(path)
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
