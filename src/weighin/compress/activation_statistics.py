"""What comes into each layer, so that a factorization keeps its outputs rather than its weights.

For inputs x with second moment C = E[x x^T] (I, I) over images and positions, the outputs' mean
squared error under a weight A is tr((W - A) C (W - A)^T), which is ||(W - A) S||^2 for S = C^(1/2).
So W S is factorized, and the first piece is multiplied by S^-1: at full rank nothing changes, and
for svd the truncation is the best there is (Zhang et al., "Accelerating very deep convolutional
networks for classification and detection", TPAMI 2016, without their nonlinearity). For k x k
kernels the inputs of neighbouring positions are taken as unrelated.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from weighin.compress.factorize import Array
from weighin.compress.network_files import RETRAIN
from weighin.errors import NetworkError
from weighin.images import normalize
from weighin.training.trainer import CHUNK

RIDGE = 1e-3  # of the mean variance, added to each channel: one that never fires keeps its weights


@dataclass(frozen=True)
class InputStatistics:
    """S and its inverse, both (I, I) and symmetric."""

    root: Array = field(repr=False)
    inverse: Array = field(repr=False)


def input_statistics(
    module: nn.Module, images: npt.NDArray[np.uint8], paths: Iterable[str]
) -> dict[str, InputStatistics]:
    """Return those of each named layer of a network in eval mode, over images (N, H, W, 3).

    Raises:
        NetworkError: what enters a layer overflows.
    """
    sums: dict[str, torch.Tensor] = {}

    def watch(path: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].movedim(1, -1).flatten(0, -2).double()  # (positions, I)
            sums[path] = sums.get(path, 0) + x.T @ x

        return hook

    with ExitStack() as stack:
        for path in paths:
            layer = module.get_submodule(path)
            stack.callback(layer.register_forward_pre_hook(watch(path)).remove)
        with torch.inference_mode():
            for at in range(0, len(images), CHUNK):
                module(torch.from_numpy(normalize(images[at : at + CHUNK])))
    for path, total in sums.items():
        if not torch.isfinite(total).all():
            raise NetworkError(f"what enters {path} is not finite for training images", RETRAIN)
    return {path: statistics_of(total.numpy()) for path, total in sums.items()}


def statistics_of(moment: Array) -> InputStatistics:
    """Return S = C^(1/2) and S^-1 of a second moment C of any scale, with the ridge added."""
    size = len(moment)
    mean = float(np.trace(moment)) / size or 1.0
    values, vectors = np.linalg.eigh(moment / mean + RIDGE * np.eye(size))
    roots = np.sqrt(values)
    return InputStatistics((vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T)


def along_inputs(array: Array, matrix: Array) -> Array:
    """Return a weight or a first piece (R, I, ...) with `matrix` (I, I) applied along I."""
    return np.moveaxis(np.tensordot(array, matrix, axes=(1, 0)), -1, 1)
