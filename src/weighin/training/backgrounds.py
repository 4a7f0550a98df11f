"""Objects on other backgrounds: a change of training images that needs to know the images.

It comes before those of augment.py, on the images that crops are cut from. What an object is put on
is one color, or a close-up of another image of its batch, too near to show what that is an image
of.
"""

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image

from weighin.images import Pixels
from weighin.plain_background import Mask, on_background, plain_background

ONE_COLOR = 0.2  # share of the new backgrounds
CLOSE_UP = (0.15, 0.5)  # of the sides of an image


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
