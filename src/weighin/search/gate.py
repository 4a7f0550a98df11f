"""What a network costs before it has a weight."""

from dataclasses import dataclass

from weighin.network.build import structure
from weighin.network.folding import fold_batch_norms
from weighin.network.macs import count_macs, count_parameters
from weighin.network.spec import NetworkSpec


@dataclass(frozen=True)
class Cost:
    """MACs and parameters of the network as it will be exported, batch norms folded."""

    macs: int
    parameters: int


def cost(spec: NetworkSpec, classes: int) -> Cost:
    """Return what a network costs.

    Raises:
        NetworkError: the rows do not make a network.
    """
    folded = fold_batch_norms(structure(spec, classes))
    return Cost(count_macs(folded, spec.input), count_parameters(folded))
