"""What a change of some layers does to a trained network, measured without training.

A factorized layer computes what a dense layer with the product of its factors does, so layers are
measured by putting that product into the network as it is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from weighin.compress.factorize import Array
from weighin.compress.network_files import RETRAIN
from weighin.data.pack import read_packed
from weighin.determinism import generator
from weighin.errors import NetworkError
from weighin.grading.f1 import ConfusionMatrix, confusion_of_indices
from weighin.images import normalize
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Logits, predict_logits
from weighin.training.weights import Trained

SAMPLE = 256  # training images behind a divergence
KEPT = 2**23  # numbers entering a row that are kept (32 MB): others are computed again


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
        return _log_softmax(x.numpy())

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


def _log_softmax(logits: Logits) -> Array:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    whole: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return whole
