"""A trained network with some of its layers factorized."""

from collections.abc import Mapping, Sequence

from weighin.compress.algebra import Array, factorized
from weighin.compress.store import Ranks, Trained
from weighin.errors import NetworkError
from weighin.network.factorized import FIX
from weighin.training.weights import module_weights


def factorize_network(
    trained: Trained,
    ranks: Ranks,
    classes: int,
    factors: Mapping[str, Sequence[Array]] | None = None,
) -> Trained:
    """Return a network with the layers that `ranks` names factorized.

    `factors` gives the weights of a layer's pieces; other layers get those of their own weights.

    Raises:
        NetworkError: there is no such layer, or it cannot be factorized so.
    """
    module = trained.module(classes)
    known = dict(module.named_modules())
    for path, how in sorted(ranks.items()):
        if path not in known:
            raise NetworkError(f"the network has no layer {path}, which the ranks name", FIX)
        pieces = factorized(known[path], how, path, (factors or {}).get(path))
        module.set_submodule(path, pieces)
    return Trained(trained.spec, module_weights(module), ranks)


def rebuilt(given: Trained, trained: Trained, classes: int) -> Trained:
    """Return `given`, or where its ranks were edited `trained` factorized by them.

    Weights that do not fit their ranks are no use; the trained network's rows, if they are the
    same, make new ones.

    Raises:
        NetworkError: rows, ranks and weights do not belong together.
    """
    try:
        given.module(classes)
    except NetworkError:
        if given.spec != trained.spec:
            raise
        return factorize_network(trained, given.ranks, classes)
    return given
