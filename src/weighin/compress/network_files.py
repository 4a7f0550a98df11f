"""A trained network on disk: network.yaml (rows), ranks.yaml and weights.safetensors.

ranks.yaml has a line a factorized layer, to read and to edit; a network is rebuilt from it alone:

    2.0.conv.6: {method: svd, ranks: [4]}
    5.1.conv.0: {method: tucker, ranks: [12, 20]}
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weighin.errors import NetworkError, ParamsError
from weighin.files import read_yaml, write_text
from weighin.network.factorized import Factorization, ranks_from_dict
from weighin.network.spec import read_spec
from weighin.training.weights import Trained, read_weights, write_weights

Ranks = Mapping[str, Factorization]
RETRAIN = "train again with a lower learning rate (recipe.lr): dvc repro train"


def write_network(folder: Path, network: Trained) -> None:
    """Write a network's three files; equal ranks give equal bytes.

    Raises:
        OutputError: the folder cannot be written.
    """
    lines = [
        f"{path}: {{method: {how.method}, ranks: [{', '.join(map(str, how.ranks))}]}}\n"
        for path, how in sorted(network.ranks.items())
    ]
    write_text(folder / "network.yaml", network.spec.to_yaml())
    write_text(folder / "ranks.yaml", "".join(lines) or "{}\n")
    write_weights(folder / "weights.safetensors", network.weights)


def check_finite(network: Trained) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        NetworkError: it names the first of them.
    """
    for name, array in sorted(network.weights.items()):
        if not np.isfinite(array).all():
            raise NetworkError(f"{name} holds numbers that are not finite", RETRAIN)


def read_network(folder: Path) -> Trained:
    """Return the network in a folder; without a ranks.yaml no layer of it is factorized.

    Raises:
        NetworkError: a file is missing, or is not what it should be.
    """
    path = folder / "ranks.yaml"
    return Trained(
        read_spec(folder / "network.yaml"),
        read_weights(folder / "weights.safetensors"),
        read_ranks(path) if path.exists() else {},
    )


def read_ranks(path: Path) -> dict[str, Factorization]:
    """Return the ranks in a file.

    Raises:
        NetworkError: it is missing, is not YAML, or a line is not of the form above.
    """
    try:
        values = read_yaml(path)
    except ParamsError as error:
        raise NetworkError(error.problem, error.fix) from None
    return ranks_from_dict(values, str(path))
