"""The training images, and which of them are in which shard.

Shapes: N images of H x W pixels, K classes, B images a shard.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from weighin.determinism import generator
from weighin.images import Pixels, Size, normalize
from weighin.params import Recipe
from weighin.training.augment import augment
from weighin.training.backgrounds import Backgrounds

Address = tuple[int | str, ...]
Labels = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """A shard's inputs (B, 3, H, W), channels last, and targets (B, K)."""

    inputs: Tensor
    targets: Tensor


class Dataset:
    """The same images at one or more sizes; every shard is a pure function of its address."""

    def __init__(
        self,
        images: Mapping[Size, Pixels],
        labels: Labels,
        classes: int,
        recipe: Recipe,
        address: Address,
        finer: int = 1,
    ) -> None:
        """Take images (N, H, W, 3) by size, labels (N,) of `classes` classes, a run's address.

        The images of a size are `finer` times larger a side; crops are cut from these.
        """
        self.finer = finer
        self.images, self.labels, self.classes = images, labels, classes
        self.recipe, self.address = recipe, address
        self.counts = np.bincount(labels, minlength=classes)  # (K,)
        self.batch = recipe.shards * recipe.shard_size
        self.backgrounds: dict[Size, Backgrounds] = {}
        self.steps = max(1, len(labels) // self.batch)  # of an epoch

    def prior(self) -> Tensor:
        """Return each class's share (K,) of what `order` draws, never quite zero.

        Balanced sampling by n^-balance leaves shares in proportion to n^(1 - balance).
        """
        drawn = [float(n) ** (1 - self.recipe.balance) if n else 0.0 for n in self.counts]
        least = 0.5 ** (1 - self.recipe.balance)  # half an image
        shares = np.maximum(drawn, least) / np.sum(drawn)
        return torch.from_numpy(shares.astype(np.float32))

    def order(self, epoch: int) -> Labels:
        """Return the image index of every place in an epoch (steps * batch,)."""
        rng = generator(*self.address, "order", epoch)
        places, count = self.steps * self.batch, len(self.labels)
        if self.recipe.balance:
            return self._balanced(rng, places)
        rounds = -(-places // count)
        return np.concatenate([rng.permutation(count) for _ in range(rounds)])[:places]

    def _balanced(self, rng: np.random.Generator, places: int) -> Labels:
        """Draw with class weights n^-balance: systematic, so that each image comes evenly."""
        weights = np.array([float(n) ** -self.recipe.balance if n else 0.0 for n in self.counts])
        shuffled = rng.permutation(len(self.labels))
        edges = np.cumsum(weights[self.labels[shuffled]])
        points = (np.arange(places) + rng.random()) * (edges[-1] / places)
        drawn = shuffled[np.minimum(np.searchsorted(edges, points), len(edges) - 1)]
        return rng.permutation(drawn)

    def shard(self, order: Labels, epoch: int, step: int, shard: int, size: Size) -> Batch:
        """Return a shard's images of a size as the network sees them."""
        chosen, rng = self.address_of(order, epoch, step, shard)
        targets = np.eye(self.classes, dtype=np.float32)[self.labels[chosen]]
        images = self._images(size, chosen, rng)
        images, targets = augment(images, targets, rng, self.recipe.augment, self.finer)
        return Batch(torch.from_numpy(normalize(images)), torch.from_numpy(targets))

    def _images(self, size: Size, chosen: Labels, rng: np.random.Generator) -> Pixels:
        if chance := self.recipe.augment.background:
            if size not in self.backgrounds:
                self.backgrounds[size] = Backgrounds(self.images[size], self.finer)
            return self.backgrounds[size].replaced(chosen, rng, chance)
        return self.images[size][chosen]

    def address_of(
        self, order: Labels, epoch: int, step: int, shard: int
    ) -> tuple[Labels, np.random.Generator]:
        """Return which images (B,) are in a shard, and the random stream of its changes."""
        start = step * self.batch + shard * self.recipe.shard_size
        chosen = order[start : start + self.recipe.shard_size]
        return chosen, generator(*self.address, "augment", epoch, step, shard)
