"""Which images are in which shard, and the shard as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from weighin.determinism import generator
from weighin.images import Pixels, normalize
from weighin.params import Recipe
from weighin.training.augment import augment

Address = tuple[int | str, ...]


@dataclass(frozen=True)
class Examples:
    """Images (N, H, W, 3) uint8 and labels (N,) of K classes."""

    images: Pixels
    labels: npt.NDArray[np.int64]
    classes: int

    def prior(self) -> Tensor:
        """Return each class's share (K,), never quite zero."""
        counts = np.bincount(self.labels, minlength=self.classes).astype(np.float32)
        return torch.from_numpy(np.maximum(counts, 0.5) / np.float32(len(self.labels)))


class Batches:
    """The batches of a run: every shard is a pure function of its address."""

    def __init__(
        self, by_size: Mapping[tuple[int, int], Examples], recipe: Recipe, address: Address
    ) -> None:
        """Take the same examples at one or more sizes."""
        self.by_size, self.recipe, self.address = by_size, recipe, address
        examples = next(iter(by_size.values()))
        self.labels, self.classes = examples.labels, examples.classes
        self.size = recipe.shards * recipe.shard_size
        self.per_epoch = max(1, len(self.labels) // self.size)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the image index of every place in an epoch (per_epoch * batch,)."""
        rng = generator(*self.address, "order", epoch)
        places, count = self.per_epoch * self.size, len(self.labels)
        if self.recipe.balance:
            return self._balanced(rng, places)
        rounds = -(-places // count)
        return np.concatenate([rng.permutation(count) for _ in range(rounds)])[:places]

    def _balanced(self, rng: np.random.Generator, places: int) -> npt.NDArray[np.int64]:
        """Draw with class weights n^-balance: systematic, so that each image comes evenly."""
        counts = np.bincount(self.labels, minlength=self.classes).astype(np.float64)
        weights = np.array([float(c) ** -self.recipe.balance if c else 0.0 for c in counts])
        shuffled = rng.permutation(len(self.labels))
        edges = np.cumsum(weights[self.labels[shuffled]])
        points = (np.arange(places) + rng.random()) * (edges[-1] / places)
        drawn = shuffled[np.minimum(np.searchsorted(edges, points), len(edges) - 1)]
        return rng.permutation(drawn)

    def shard(
        self, order: npt.NDArray[np.int64], epoch: int, step: int, shard: int, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return a shard's inputs (B, 3, H, W), channels last, and targets (B, K)."""
        start = step * self.size + shard * self.recipe.shard_size
        chosen = order[start : start + self.recipe.shard_size]
        examples = self.by_size[size]
        targets = np.eye(self.classes, dtype=np.float32)[examples.labels[chosen]]
        rng = generator(*self.address, "augment", epoch, step, shard)
        batch, targets = augment(examples.images[chosen], targets, rng, self.recipe.augment)
        return torch.from_numpy(normalize(batch)), torch.from_numpy(targets)
