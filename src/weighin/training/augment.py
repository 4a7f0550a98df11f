"""Random changes of a batch: uint8 (B, H, W, 3) in, a new array of the same shape out.

Every function leaves its inputs as they are and draws from the generator that it is given; `rng`
holds the batch's own address, so a batch is the same whatever came before it.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from weighin.images import Pixels
from weighin.params import Augment

Targets = npt.NDArray[np.float32]  # (B, K), each row a distribution
GREY = 128


def flip(batch: Pixels, rng: Generator, chance: float) -> Pixels:
    """Mirror each image left to right with a chance."""
    return _mirrored(batch, rng.random(len(batch)) < chance, axis=2)


def flip_vertical(batch: Pixels, rng: Generator, chance: float) -> Pixels:
    """Mirror each image top to bottom with a chance."""
    return _mirrored(batch, rng.random(len(batch)) < chance, axis=1)


def translate(batch: Pixels, rng: Generator, share: float) -> Pixels:
    """Shift each image by whole pixels, at most `share` of a side; edges are reflected."""
    count, height, width = _shape(batch)
    most = (int(height * share), int(width * share))
    padded = np.pad(batch, ((0, 0), (most[0], most[0]), (most[1], most[1]), (0, 0)), "reflect")
    tops = rng.integers(0, 2 * most[0] + 1, count)
    lefts = rng.integers(0, 2 * most[1] + 1, count)
    out = np.empty_like(batch)
    for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        out[i] = padded[i, top : top + height, left : left + width]
    return out


def random_resized_crop(batch: Pixels, rng: Generator, smallest: float) -> Pixels:
    """Cut a box of an area from `smallest` to 1 and an aspect of 3:4 to 4:3, and resize it back."""
    count, height, width = _shape(batch)
    areas = rng.uniform(smallest, 1, count).tolist()
    stretch = rng.uniform(0.75, 1, count).tolist()
    tall = rng.random(count) < 0.5
    places = rng.random((count, 2)).tolist()
    out = np.empty_like(batch)
    for i, image in enumerate(batch):
        ratio = stretch[i] if tall[i] else 1 / stretch[i]
        box_h = min(height, height * (areas[i] / ratio) ** 0.5)
        box_w = min(width, width * (areas[i] * ratio) ** 0.5)
        top, left = (height - box_h) * places[i][0], (width - box_w) * places[i][1]
        box = (left, top, left + box_w, top + box_h)
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box)
        out[i] = np.asarray(resized)
    return out


def affine(batch: Pixels, rng: Generator, rotate: float, shear: float) -> Pixels:
    """Turn and shear each image about its centre by up to so many degrees; grey comes in."""
    count, height, width = _shape(batch)
    angles = rng.uniform(-rotate, rotate, count).tolist()
    shears = rng.uniform(-shear, shear, count).tolist()
    out = np.empty_like(batch)
    for i, image in enumerate(batch):
        matrix = _inverse_affine(angles[i], shears[i], (height, width))
        out[i] = _warp(image, matrix)
    return out


def color(batch: Pixels, rng: Generator, strength: float) -> Pixels:
    """Change brightness, contrast and saturation, each by a factor of 1 +- `strength`."""
    count = len(batch)
    bright, contrast, saturation = rng.uniform(1 - strength, 1 + strength, (3, count, 1, 1))
    # saturation s is x -> s x + (1 - s) grey(x): one 3 x 3 matrix; contrast turns about the mean
    luma = np.full((3, 3), [[0.299], [0.587], [0.114]])
    matrix = (saturation * np.eye(3) + (1 - saturation) * luma) * contrast * bright
    means = (batch.reshape(count, -1).sum(1, np.int64) / batch[0].size)[:, None, None]
    shift = (1 - contrast) * bright * means + 0.5
    flat = batch.reshape(count, -1, 3).astype(np.float32)
    mixed = flat @ matrix.astype(np.float32)
    mixed += shift.astype(np.float32)
    painted: Pixels = np.clip(mixed, 0, 255, out=mixed).astype(np.uint8)
    return painted.reshape(batch.shape)


def cutout(batch: Pixels, rng: Generator, share: float) -> Pixels:
    """Paint a grey square of `share` of the shorter side (DeVries and Taylor, 2017)."""
    out = batch.copy()
    count, height, width = _shape(batch)
    side = round(share * min(height, width))
    tops = rng.integers(-side // 2, height - side // 2, count)
    lefts = rng.integers(-side // 2, width - side // 2, count)
    for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        out[i, max(top, 0) : top + side, max(left, 0) : left + side] = GREY
    return out


def mixup(batch: Pixels, targets: Targets, rng: Generator, alpha: float) -> tuple[Pixels, Targets]:
    """Blend each image and target with another's (Zhang et al., "mixup", 2018)."""
    weight = float(rng.beta(alpha, alpha))
    partner = rng.permutation(len(batch))
    blended = batch * np.float32(weight) + batch[partner] * np.float32(1 - weight) + np.float32(0.5)
    mixed = targets * np.float32(weight) + targets[partner] * np.float32(1 - weight)
    return blended.astype(np.uint8), mixed


def cutmix(
    batch: Pixels, targets: Targets, rng: Generator, chance: float
) -> tuple[Pixels, Targets]:
    """With a chance, put a box of another image into each (Yun et al., "CutMix", 2019)."""
    if rng.random() >= chance:
        return batch, targets
    _, height, width, _ = batch.shape
    side = (1 - rng.random()) ** 0.5
    box_h, box_w = round(height * side), round(width * side)
    top = int(rng.integers(0, height - box_h + 1))
    left = int(rng.integers(0, width - box_w + 1))
    partner = rng.permutation(len(batch))
    out = batch.copy()
    out[:, top : top + box_h, left : left + box_w] = batch[
        partner, top : top + box_h, left : left + box_w
    ]
    kept = np.float32(1 - box_h * box_w / (height * width))
    return out, targets * kept + targets[partner] * (1 - kept)


def degrade(batch: Pixels, rng: Generator, chance: float, how: "Degradation") -> Pixels:
    """With a chance, make each image worse by `how`, at a strength drawn evenly from 0 to 1."""
    out = batch.copy()
    chosen = np.flatnonzero(rng.random(len(batch)) < chance)
    for i, strength in zip(chosen, rng.random(len(chosen)).tolist(), strict=True):
        out[i] = how(batch[i], strength, rng)
    return out


def blur(image: Pixels, strength: float, rng: Generator) -> Pixels:
    """Blur an image (H, W, 3) by a Gaussian of a radius of 0.3 to 1.3 pixels."""
    radius = 0.3 + strength
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def darken(image: Pixels, strength: float, rng: Generator) -> Pixels:
    """Take up to 80 % of the light of an image, and bend it by a gamma of 0.7 to 1.4."""
    light = np.linspace(0, 1, 256) ** rng.uniform(0.7, 1.4)
    table = np.round((255 - 204 * strength) * light).astype(np.uint8)
    return table[image]


def add_noise(image: Pixels, strength: float, rng: Generator) -> Pixels:
    """Add a sensor's noise of a standard deviation of up to 30 of 255, in whole numbers."""
    pair = rng.integers(0, 256, (2, *image.shape), np.uint8).astype(np.int32)
    noise = (pair[0] - pair[1]) * round(30 * strength / 104.5 * 256)  # 104.5: their own deviation
    noisy: Pixels = np.clip(image + (noise >> 8), 0, 255).astype(np.uint8)
    return noisy


def compress(image: Pixels, strength: float, rng: Generator) -> Pixels:
    """Save an image as a JPEG of quality 80 down to 20."""
    quality = round(80 - 60 * strength)
    file = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "420", fastdct=False)
    saved: Pixels = simplejpeg.decode_jpeg(file, "RGB")  # four times as fast as Pillow
    return saved


Degradation = Callable[[Pixels, float, Generator], Pixels]
DEGRADATIONS: dict[str, Degradation] = {  # in the order in which a camera does them
    "blur": blur,
    "dark": darken,
    "noise": add_noise,
    "jpeg": compress,
}


def randaugment(batch: Pixels, rng: Generator, operations: int, magnitude: int) -> Pixels:
    """Apply so many operations of RandAugment's set to each image (Cubuk et al., 2020)."""
    names = list(RANDAUGMENT)
    chosen = rng.integers(0, len(names), (len(batch), operations))
    signs = rng.integers(0, 2, (len(batch), operations)) * 2 - 1
    out = np.empty_like(batch)
    for i, pixels in enumerate(batch):
        image = Image.fromarray(pixels)
        for which, sign in zip(chosen[i], signs[i], strict=True):
            image = RANDAUGMENT[names[which]](image, magnitude / 30, int(sign))
        out[i] = np.asarray(image)
    return out


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> "Operation":
    return lambda image, level, sign: kind(image).enhance(1 + sign * 0.9 * level)


def _warped(matrix: Callable[[float, Image.Image], tuple[float, ...]]) -> "Operation":
    def apply(image: Image.Image, level: float, sign: int) -> Image.Image:
        return Image.fromarray(_warp(np.asarray(image), matrix(level * sign, image)))

    return apply


Operation = Callable[[Image.Image, float, int], Image.Image]
RANDAUGMENT: dict[str, Operation] = {
    "identity": lambda image, level, sign: image,
    "autocontrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "rotate": _warped(lambda x, image: _inverse_affine(30 * x, 0, (image.height, image.width))),
    "shear-x": _warped(lambda x, image: (1, 0.3 * x, -0.15 * x * image.height, 0, 1, 0)),
    "shear-y": _warped(lambda x, image: (1, 0, 0, 0.3 * x, 1, -0.15 * x * image.width)),
    "translate-x": _warped(lambda x, image: (1, 0, 0.3 * x * image.width, 0, 1, 0)),
    "translate-y": _warped(lambda x, image: (1, 0, 0, 0, 1, 0.3 * x * image.height)),
    "posterize": lambda image, level, sign: ImageOps.posterize(image, 8 - round(4 * level)),
    "solarize": lambda image, level, sign: ImageOps.solarize(image, 256 - round(256 * level)),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
}


def augment(
    batch: Pixels, targets: Targets, rng: Generator, knobs: Augment
) -> tuple[Pixels, Targets]:
    """Apply what a recipe switches on, geometry first, mixing last."""
    if knobs.flip:
        batch = flip(batch, rng, knobs.flip)
    if knobs.flip_vertical:
        batch = flip_vertical(batch, rng, knobs.flip_vertical)
    if knobs.crop < 1:
        batch = random_resized_crop(batch, rng, knobs.crop)
    if knobs.rotate or knobs.shear:
        batch = affine(batch, rng, knobs.rotate, knobs.shear)
    if knobs.translate:
        batch = translate(batch, rng, knobs.translate)
    if knobs.randaugment:
        batch = randaugment(batch, rng, knobs.randaugment, knobs.magnitude)
    if knobs.color:
        batch = color(batch, rng, knobs.color)
    for name, how in DEGRADATIONS.items():
        if chance := getattr(knobs, name):
            batch = degrade(batch, rng, chance, how)
    if knobs.cutout:
        batch = cutout(batch, rng, knobs.cutout)
    if knobs.mixup:
        batch, targets = mixup(batch, targets, rng, knobs.mixup)
    if knobs.cutmix:
        batch, targets = cutmix(batch, targets, rng, knobs.cutmix)
    return batch, targets


def _mirrored(batch: Pixels, chosen: npt.NDArray[np.bool_], axis: int) -> Pixels:
    out = batch.copy()
    out[chosen] = torch.from_numpy(batch[chosen]).flip(axis).numpy()  # NumPy: five times slower
    return out


def _inverse_affine(angle: float, shear: float, size: tuple[int, int]) -> tuple[float, ...]:
    """Return the map from an output pixel to its source: a turn and a shear about the centre."""
    turn = np.round(np.exp(1j * np.deg2rad(angle)), 7)  # rounded: another libm's last bit
    slope = float(np.round(np.tan(np.deg2rad(shear)), 7))
    cos, sin = float(turn.real), float(turn.imag)
    a, b, d, e = cos, cos * slope + sin, -sin, cos - sin * slope
    cx, cy = size[1] / 2, size[0] / 2
    return a, b, cx - a * cx - b * cy, d, e, cy - d * cx - e * cy


def _warp(image: Pixels, matrix: tuple[float, ...]) -> Pixels:
    height, width, _ = image.shape
    warped = Image.fromarray(image).transform(
        (width, height),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=(GREY, GREY, GREY),
    )
    return np.asarray(warped)


def _shape(batch: Pixels) -> tuple[int, int, int]:
    count, height, width, _ = batch.shape
    return count, height, width
