"""A network's numbers by name: float32 arrays of a module's parameters and norm statistics.

On disk they are safetensors without metadata (which safetensors writes in random order), so equal
weights give equal bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from weighin.errors import NetworkError
from weighin.files import write_bytes
from weighin.network.build import build
from weighin.network.factorized import Factorization
from weighin.network.spec import NetworkSpec

Weights = Mapping[str, npt.NDArray[np.float32]]
FIX = "rebuild the stage that wrote the weights: dvc repro"


@dataclass(frozen=True)
class Trained:
    """A network with its weights, and how some of its layers are factorized."""

    spec: NetworkSpec
    weights: Weights = field(repr=False)
    ranks: Mapping[str, Factorization] = field(default_factory=dict)

    def module(self, classes: int) -> nn.Module:
        """Return the torch module, in eval mode.

        Raises:
            NetworkError: rows, ranks and weights do not belong together.
        """
        module = build(self.spec, classes, self.ranks)
        load_weights(module, self.weights)
        return module.eval()


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights to `path`, whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    write_bytes(path, safetensors.numpy.save({k: weights[k] for k in sorted(weights)}))


def read_weights(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights in a file.

    Raises:
        NetworkError: it is missing, is not safetensors, or holds other numbers than float32.
    """
    try:
        arrays = safetensors.numpy.load(Path(path).read_bytes())
    except FileNotFoundError:
        raise NetworkError(f"{path} does not exist", FIX) from None
    except SafetensorError as error:
        raise NetworkError(f"{path} is not a safetensors file: {error}", FIX) from None
    odd = sorted(name for name, array in arrays.items() if array.dtype != np.float32)
    if odd:
        raise NetworkError(f"{path}: {odd[0]} is {arrays[odd[0]].dtype}, not float32", FIX)
    return arrays


def module_weights(module: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Return a copy of every parameter and statistic by name, in the usual layout."""
    return {k: v.detach().contiguous().clone().numpy() for k, v in _named(module).items()}


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Copy named arrays into a module of the same shapes.

    Raises:
        NetworkError: a name or a shape differs.
    """
    own = _named(module)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())[0]
        raise NetworkError(f"weights and network differ: {odd} is in one only", FIX)
    for name, target in own.items():
        if tuple(target.shape) != weights[name].shape:
            shapes = f"{tuple(target.shape)} in the network, {weights[name].shape} in the weights"
            raise NetworkError(f"weights and network differ: {name} is {shapes}", FIX)
        target.data.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))


def _named(module: nn.Module) -> dict[str, Tensor]:
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: named[name] for name in sorted(named) if "num_batches_tracked" not in name}
