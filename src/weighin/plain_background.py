"""Finds the plain background of a photograph, so that its object can be put on another.

Photographs of one source often lie on one table or sheet of paper, and a network learns the table
(Geirhos et al., "Shortcut learning in deep neural networks", 2020; Dwibedi et al., "Cut, paste and
learn", 2017). Such a background needs no annotation to be found: most of the image's edge has
nearly one color, and from there on neighboring pixels differ little as far as the object.

Pixels are uint8 (H, W, 3). Everything is whole numbers: every machine finds the same.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from scipy import ndimage

from weighin.images import Pixels

EDGE = 40  # of 255: how far a pixel of the image's edge is from the edge's median
EDGE_SHARE = 0.6  # of the edge's pixels are at most so far, or there is no plain background
STEP = 10  # of 255: how far a pixel of the background is from its neighbors at most
FAR = 90  # of 255: and from the median
AREA = (0.15, 0.95)  # of the image: what is less or more is no background of an object

Numbers = npt.NDArray[np.int16]
Mask = Image.Image  # "L": 255 in the background, 0 in the object, between them at the edge


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
