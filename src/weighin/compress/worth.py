"""What a network that is not yet exported would score in the contest."""

from weighin.compress.store import Ranks
from weighin.grading.score import Metrics, score
from weighin.network.build import structure
from weighin.network.folding import fold_batch_norms
from weighin.network.macs import count_macs, count_parameters
from weighin.network.spec import NetworkSpec
from weighin.params import Contest


def worth(
    contest: Contest,
    spec: NetworkSpec,
    classes: int,
    quality: tuple[float, float],
    ranks: Ranks | None = None,
) -> float:
    """Return the score of a network of this (F1, accuracy), its norms folded; lower is better.

    Raises:
        NetworkError: rows and ranks do not make a network.
    """
    module = fold_batch_norms(structure(spec, classes, ranks))
    macs, parameters = count_macs(module, spec.input), count_parameters(module)
    return score(contest, Metrics(*quality, macs, parameters)).value
