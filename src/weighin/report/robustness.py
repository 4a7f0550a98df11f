"""What is left of macro F1 on corrupted images: the packed validation images, changed.

Four of the corruptions of Hendrycks and Dietterich, "Benchmarking neural network robustness to
common corruptions and perturbations", ICLR 2019, at one strength each, and another background; all
of images at the network's own size. Each is integer arithmetic, so that every machine sees the same
pixels.

Pixels are uint8 (H, W, 3).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from weighin.data.pack import Packed, read_packed
from weighin.determinism import generator
from weighin.grading.f1 import confusion_of_indices
from weighin.grading.grade import SEED
from weighin.grading.model import Model
from weighin.grading.runtime import Runner
from weighin.images import Pixels, decode
from weighin.plain_background import on_background, plain_background

MOST = 2000  # images, evenly spaced: more would take minutes and tell little more
NOISE = 32  # of 255: the largest change of a value, either way
QUALITY = 15  # of 95
BLOTS = (5, 7)  # rows and columns of a new background


@dataclass(frozen=True)
class Robustness:
    """Macro F1 as the images are and by corruption, and one image as each leaves it."""

    clean: float
    f1: dict[str, float]
    example: dict[str, Pixels]
    images: int


def robustness(model: Model, prepared: Path) -> Robustness:
    """Return what corruptions cost the exported model, labelling as the grader does.

    Raises:
        DataError: the validation images were not packed at the model's size.
        ModelError: ONNX Runtime refuses the model.
    """
    packed, runner = read_packed(prepared, "validation", model.size), Runner(model)
    every = -(-len(packed.labels) // MOST)
    rows = np.arange(0, len(packed.labels), every)
    f1s = {
        kind: _f1(packed, rows, runner, model.graph.batch, corrupt)
        for kind, (_, corrupt) in {"clean": ("", lambda image, _: image), **CORRUPTIONS}.items()
    }
    first = np.asarray(packed.images[rows[0]])
    example = {kind: corrupt(first, 0) for kind, (_, corrupt) in CORRUPTIONS.items()}
    return Robustness(f1s.pop("clean"), f1s, {"clean": first, **example}, len(rows))


def _f1(
    packed: Packed,
    rows: npt.NDArray[np.int64],
    runner: Runner,
    size: int,
    corrupt: Callable[[Pixels, int], Pixels],
) -> float:
    labels = [
        runner.logits(np.stack([corrupt(np.asarray(packed.images[row]), row) for row in part]))
        for part in (rows[start : start + size].tolist() for start in range(0, len(rows), size))
    ]
    predicted = np.concatenate(labels).argmax(axis=1)
    return confusion_of_indices(packed.labels[rows], predicted, packed.classes).f1


def blur(image: Pixels, row: int) -> Pixels:
    """Return the mean of each pixel and its eight neighbours."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(1)))


def noise(image: Pixels, row: int) -> Pixels:
    """Return each value changed by up to NOISE, evenly; another image has another noise."""
    random = generator(SEED, "robustness", row)
    added: npt.NDArray[np.int16] = random.integers(-NOISE, NOISE + 1, image.shape, np.int16)
    noisy: Pixels = np.clip(image + added, 0, 255).astype(np.uint8)
    return noisy


def jpeg(image: Pixels, row: int) -> Pixels:
    """Return the image as a JPEG of quality QUALITY leaves it."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=QUALITY)
    return decode(out.getvalue()).pixels


def dark(image: Pixels, row: int) -> Pixels:
    """Return the image in a third of the light."""
    return np.asarray(image // 3)


def background(image: Pixels, row: int) -> Pixels:
    """Return the image with smooth blots of color for its plain background, if it has one."""
    mask = plain_background(image)
    if mask is None:
        return image
    height, width, _ = image.shape
    blots = generator(SEED, "background", row).integers(0, 256, (*BLOTS, 3), np.uint8)
    new = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
    return on_background(image, mask, new)


CORRUPTIONS: dict[str, tuple[str, Callable[[Pixels, int], Pixels]]] = {
    "blur": ("each pixel is the mean of 3 × 3", blur),
    "noise": (f"each value is changed by up to {NOISE} of 255", noise),
    "jpeg": (f"saved as a JPEG of quality {QUALITY}", jpeg),
    "dark": ("a third of the light", dark),
    "background": ("a plain background becomes blots of color", background),
}
