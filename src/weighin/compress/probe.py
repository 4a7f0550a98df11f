"""What a change of some layers does to a trained network, measured without training.

A factorized layer computes what a dense layer with the product of its factors does, so layers are
measured by putting that product into the network as it is.

What comes into a layer is measured too, so that a factorization keeps its outputs rather than its
weights. For inputs x with second moment C = E[x x^T] (I, I) over images and positions, the outputs'
mean squared error under a weight A is tr((W - A) C (W - A)^T), which is ||(W - A) S||^2 for
S = C^(1/2). So W S is factorized, and the first piece is multiplied by S^-1: at full rank nothing
changes, and for svd the truncation is the best there is (Zhang et al., "Accelerating very deep
convolutional networks for classification and detection", TPAMI 2016, without their nonlinearity).
For k x k kernels the inputs of neighbouring positions are taken as unrelated.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from torch import nn

from weighin.compress.context import RETRAIN
from weighin.compress.factorize import Array
from weighin.data.pack import read_packed
from weighin.determinism import generator
from weighin.errors import NetworkError
from weighin.grading.score import ConfusionMatrix, confusion_of_indices
from weighin.images import normalize
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import CHUNK, predict_logits
from weighin.training.weights import Trained

SAMPLE = 256  # training images behind a divergence
KEPT = 2**23  # numbers entering a row that are kept (32 MB): others are computed again
RIDGE = 1e-3  # of the mean variance, added to each channel: one that never fires keeps its weights


class Probe:
    """A trained network, a sample of the training images, and the validation split."""

    def __init__(self, packed: Path, network: Trained, seed: int) -> None:
        self.network = network
        train = read_packed(packed, "train", network.spec.input)
        self.validation = read_packed(packed, "validation", network.spec.input)
        module = network.module(len(train.classes))
        self.module = cast(nn.Sequential, module.to(memory_format=torch.channels_last))
        order = generator(seed, "decompose", "sample").permutation(len(train.labels))
        self.sample = np.asarray(train.images[np.sort(order[:SAMPLE])])

    @cached_property
    def own(self) -> Array:
        """The unchanged network's log-probabilities (N, K) on the sample."""
        answers = self._answers(0, normalized(self.sample))
        if not np.isfinite(answers).all():
            raise NetworkError("the network's logits of training images are not finite", RETRAIN)
        return answers

    @cached_property
    def entering(self) -> dict[int, torch.Tensor]:
        """What enters each row of the unchanged network for the sample, where it is small."""
        x = normalized(self.sample)
        found = {0: x}
        with torch.inference_mode():
            for number, row in enumerate(self.module, 1):
                x = row(x)
                if x.numel() <= KEPT:
                    found[number] = x
        return found

    def divergence(self, changes: Mapping[str, Array]) -> float:
        """Return the mean KL(own labels || changed labels), in nats, on the sample.

        It needs no true labels, and unlike F1 it tells small changes apart. Rows before the first
        change are not run again.
        """
        first = min((int(path.partition(".")[0]) for path in changes), default=0)
        start = max(number for number in self.entering if number <= first)
        own = self.own
        with self._changed(changes):
            changed = self._answers(start, self.entering[start])
        return float(np.sum(np.exp(own) * (own - changed), axis=1).mean())

    def _answers(self, start: int, x: torch.Tensor) -> Array:
        with torch.inference_mode():
            for row in self.module[start:]:
                x = row(x)
        return log_softmax(x.double().numpy(), axis=1)  # type: ignore[no-any-return]

    def confusion(self, changes: Mapping[str, Array] | None = None) -> ConfusionMatrix:
        """Return how the validation images are labelled."""
        with self._changed(changes or {}):
            logits = predict_logits(self.module, self.validation.images, ProcessGroup())
        return confusion_of_indices(
            self.validation.labels, logits.argmax(1), self.validation.classes
        )

    @contextmanager
    def _changed(self, changes: Mapping[str, Array]) -> Iterator[None]:
        weights = {path: self._weight(path) for path in changes}
        before = {path: weight.clone() for path, weight in weights.items()}
        for path, weight in weights.items():
            weight.copy_(torch.from_numpy(changes[path]))
        try:
            yield
        finally:
            for path, weight in weights.items():
                weight.copy_(before[path])

    def _weight(self, path: str) -> torch.Tensor:
        weight = self.module.get_submodule(path).weight
        assert isinstance(weight, torch.Tensor)
        return weight.detach()


def normalized(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) as a network's input (N, 3, H, W)."""
    return torch.from_numpy(normalize(images))


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
                module(normalized(images[at : at + CHUNK]))
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
