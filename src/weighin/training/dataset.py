"""The training images: which of them are in which shard, and on which background.

Shapes: N images of H x W pixels, K classes, B images a shard. Pixels are uint8 (H, W, 3); what
finds a background uses whole numbers alone, so every machine finds the same.

Another background comes before the changes of augment.py, on the images that crops are cut from.
What an object is put on is one color, or a close-up of another image of its batch, too near to show
what that is an image of.

Photographs of one source often lie on one table or sheet of paper, and a network learns the table
(Geirhos et al., "Shortcut learning in deep neural networks", 2020; Dwibedi et al., "Cut, paste and
learn", 2017). Such a background needs no annotation to be found: most of the image's edge has
nearly one color, and from there on neighboring pixels differ little as far as the object.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator
from PIL import Image, ImageFilter
from scipy import ndimage
from torch import Tensor

from weighin.determinism import generator
from weighin.images import Pixels, Size
from weighin.params import Recipe
from weighin.training.augment import augment, scaled

ONE_COLOR = 0.2  # share of the new backgrounds
CLOSE_UP = (0.15, 0.5)  # of the sides of an image
Address = tuple[int | str, ...]
Labels = npt.NDArray[np.int64]
EDGE = 40  # of 255: how far a pixel of the image's edge is from the edge's median
EDGE_SHARE = 0.6  # of the edge's pixels are at most so far, or there is no plain background
STEP = 10  # of 255: how far a pixel of the background is from its neighbors at most
FAR = 90  # of 255: and from the median
AREA = (0.15, 0.95)  # of the image: what is less or more is no background of an object
Numbers = npt.NDArray[np.int16]
Mask = Image.Image  # "L": 255 in the background, 0 in the object, between them at the edge


class Backgrounds:
    """The plain backgrounds of images (N, H, W, 3), each looked for when it is first needed."""

    def __init__(self, images: Pixels, finer: int = 1) -> None:
        """Take images that are `finer` times larger a side than those that a network sees."""
        self.images, self.finer = images, finer
        self.masks: dict[int, Mask | None] = {}

    def replaced(self, chosen: npt.NDArray[np.int64], rng: Generator, chance: float) -> Pixels:
        """Return the chosen images (B,), each on another background with a chance if it can be."""
        batch = np.array(self.images[chosen])
        changed = np.flatnonzero(rng.random(len(chosen)) < chance)
        drawn = rng.random((len(changed), 5))  # whatever the images are like
        out = batch.copy()
        for i, numbers in zip(changed, drawn, strict=True):
            if mask := self._mask(int(chosen[i]), batch[i]):
                out[i] = on_background(batch[i], mask, _new_background(batch, numbers.tolist()))
        return out

    def _mask(self, index: int, image: Pixels) -> Mask | None:
        if index not in self.masks:
            small = Image.fromarray(image).reduce(self.finer)
            self.masks[index] = plain_background(np.asarray(small))
        return self.masks[index]


def _new_background(batch: Pixels, numbers: list[float]) -> Image.Image:
    """Return one color, or a close-up of an image of the batch, chosen by 5 numbers of [0, 1)."""
    count, height, width, _ = batch.shape
    kind, *rest = numbers
    if kind < ONE_COLOR:
        red, green, blue = (int(256 * value) for value in rest[:3])
        return Image.new("RGB", (width, height), (red, green, blue))
    which, size, across, down = rest
    share = CLOSE_UP[0] + (CLOSE_UP[1] - CLOSE_UP[0]) * size
    left, top = width * (1 - share) * across, height * (1 - share) * down
    box = (left, top, left + width * share, top + height * share)
    source = Image.fromarray(batch[int(count * which)])
    return source.resize((width, height), Image.Resampling.BILINEAR, box=box)


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
        return Batch(torch.from_numpy(scaled(images)), torch.from_numpy(targets))

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


def plain_background(image: Pixels) -> Mask | None:
    """Return where an image's plain background is; None if it has none."""
    pixels = image.astype(np.int16)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    color = np.sort(edge, axis=0)[len(edge) // 2]
    if np.mean(np.abs(edge - color).max(1) < EDGE) < EDGE_SHARE:
        return None
    near = np.abs(pixels - color).max(2) < FAR
    regions, count = ndimage.label(near & (_largest_step(pixels) < STEP))
    touches = np.zeros(count + 1, np.bool_)
    for side in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        touches[side] = True
    touches[0] = False
    found = touches[regions]
    # a step is seen from both of its sides: the background ends a pixel further on
    background = ndimage.binary_dilation(found, iterations=1)
    if not AREA[0] < found.mean() < AREA[1]:
        return None
    mask = Image.fromarray(background.astype(np.uint8) * np.uint8(255))
    return mask.filter(ImageFilter.BoxBlur(1))


def _largest_step(pixels: Numbers) -> Numbers:
    """Return how far each pixel (H, W) is from that of its four neighbors that is farthest."""
    largest = np.zeros(pixels.shape[:2], np.int16)
    for axis in (0, 1):
        step = np.abs(np.diff(pixels, axis=axis)).max(2)
        before, after = largest.swapaxes(0, axis)[:-1], largest.swapaxes(0, axis)[1:]
        step = step.swapaxes(0, axis)
        np.maximum(before, step, out=before)
        np.maximum(after, step, out=after)
    return largest


def on_background(image: Pixels, mask: Mask, background: Image.Image) -> Pixels:
    """Return an image whose background is another image of the same size."""
    own = Image.fromarray(image)
    if mask.size != own.size:
        mask = mask.resize(own.size, Image.Resampling.BILINEAR)
    return np.asarray(Image.composite(background, own, mask))
