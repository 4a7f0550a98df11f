"""Random changes of a batch: uint8 (B, H, W, 3) in, a new array of the same shape out.

Every function leaves its inputs as they are and draws from the generator that it is given; `rng`
holds the batch's own address, so a batch is the same whatever came before it. What is drawn has a
function of its own where a GPU draws it too (device_trainer.py).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import simplejpeg
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from weighin.images import Pixels
from weighin.params import Augment
from weighin.training.compiled import (
    blending,
    mix_colors,
    moving,
    scaling,
    summing,
    warping,
)
from weighin.training.vectors import LANES

Targets = npt.NDArray[np.float32]  # (B, K), each row a distribution
Doubles = npt.NDArray[np.float64]
Maps = Doubles  # (B, 6): the first two rows of a map from a pixel's center to its source
Shape = tuple[int, int, int]  # B, H, W
Box = tuple[float, float, float, float]
GREY = 128
SHARPEST = 0.3  # pixels: the least radius of a blur
WEAKER = (
    *("translate", "rotate", "shear", "color", "cutout", "mixup", "cutmix"),
    *("blur", "dark", "noise", "jpeg", "background"),
)


def weaker(knobs: Augment, share: float) -> Augment:
    """Return changes of so large a share of the strength, or of the chance; mirroring stays."""
    if share == 1:  # to the last bit
        return knobs
    changes = {name: getattr(knobs, name) * share for name in WEAKER}
    crop = 1 - share * (1 - knobs.crop)
    return replace(knobs, crop=crop, magnitude=round(knobs.magnitude * share), **changes)


def mirrors(count: int, rng: Generator, knobs: Augment) -> npt.NDArray[np.bool_]:
    """Draw which images (B, 2) are mirrored top to bottom, and left to right."""
    drawn = np.zeros((count, 2), np.bool_)
    for axis, chance in ((1, knobs.flip), (0, knobs.flip_vertical)):
        if chance:
            drawn[:, axis] = rng.random(count) < chance
    return drawn


def shifts(shape: Shape, rng: Generator, share: float) -> npt.NDArray[np.int64]:
    """Draw how far down and right (B, 2) each image's window moves, in whole pixels."""
    most = [int(side * share) for side in shape[1:]]
    return np.stack([rng.integers(0, 2 * m + 1, shape[0]) - m for m in most], 1)


def move(batch: Pixels, mirrored: npt.NDArray[np.bool_], shifted: npt.NDArray[np.int64]) -> Pixels:
    """Mirror each image (B, 2), then shift it by whole pixels (B, 2); edges are reflected."""
    if not (mirrored.any() or shifted.any()):
        return batch
    given, out = np.concatenate([shifted, mirrored], 1, dtype=np.float32), _output(batch.shape)
    readable = _readable(batch)
    moving()(*(array.ctypes.data for array in (readable, given, out)), *_shape(batch))
    return out


def warp(batch: Pixels, maps: Maps, finer: int = 1) -> Pixels:
    """Move each image by its map; between pixels it is interpolated, and grey comes in.

    Images that are so many times finer than those that come out are averaged over each pixel.
    """
    count, *sides = _shape(batch)
    height, width = (side // finer for side in sides)
    readable, out = _readable(batch), _output((count, height, width, 3))
    given = np.ascontiguousarray(maps, np.float32)
    addresses = (array.ctypes.data for array in (readable, given, out))
    warping(finer)(*addresses, count, height, width, GREY)
    return out


def moves(knobs: Augment) -> bool:
    """Whether a recipe crops, turns or shears."""
    return bool(knobs.crop < 1 or knobs.rotate or knobs.shear)


def source_maps(shape: Shape, rng: Generator, knobs: Augment) -> Maps:
    """Draw where each image's pixels come from: the crop of a box, of which a turn and a shear."""
    maps = np.tile(np.eye(3), (shape[0], 1, 1))
    if knobs.crop < 1:
        maps = crop_maps(shape, crop_boxes(shape, rng, knobs.crop))
    if knobs.rotate or knobs.shear:
        maps = maps @ affine_maps(shape, rng, knobs.rotate, knobs.shear)
    return maps[:, :2].reshape(-1, 6)


def crop_maps(shape: Shape, boxes: list[Box]) -> Doubles:
    """Return the maps (B, 3, 3) whose images are boxes, resized to the whole."""
    left, top, right, bottom = np.array(boxes).T
    maps = np.zeros((shape[0], 3, 3))
    maps[:, 0, 0], maps[:, 0, 2] = (right - left) / shape[2], left
    maps[:, 1, 1], maps[:, 1, 2] = (bottom - top) / shape[1], top
    maps[:, 2, 2] = 1
    return maps


def crop_boxes(shape: Shape, rng: Generator, smallest: float) -> list[Box]:
    """Draw the box (left, top, right, bottom) of each image, in pixels."""
    count, height, width = shape
    areas = rng.uniform(smallest, 1, count).tolist()
    stretch = rng.uniform(0.75, 1, count).tolist()
    tall = rng.random(count) < 0.5
    places = rng.random((count, 2)).tolist()
    boxes = []
    for i in range(count):
        ratio = stretch[i] if tall[i] else 1 / stretch[i]
        box_h = min(height, height * (areas[i] / ratio) ** 0.5)
        box_w = min(width, width * (areas[i] * ratio) ** 0.5)
        top, left = (height - box_h) * places[i][0], (width - box_w) * places[i][1]
        boxes.append((left, top, left + box_w, top + box_h))
    return boxes


def affine_maps(shape: Shape, rng: Generator, rotate: float, shear: float) -> Doubles:
    """Draw maps (B, 3, 3) that turn and shear by up to so many degrees about the center."""
    count, height, width = shape
    angles, shears = rng.uniform(-rotate, rotate, count), rng.uniform(-shear, shear, count)
    return turn_and_shear(angles, shears, (height, width))


def turn_and_shear(angles: Doubles, shears: Doubles, size: tuple[int, int]) -> Doubles:
    """Return the maps (B, 3, 3) of images turned and sheared by degrees (B,) about the center."""
    turn = np.round(np.exp(1j * np.deg2rad(angles)), 7)  # rounded: another libm's last bit
    slope = np.round(np.tan(np.deg2rad(shears)), 7)
    maps = np.tile(np.eye(3), (len(angles), 1, 1))
    maps[:, 0, 0], maps[:, 0, 1] = turn.real, turn.real * slope + turn.imag
    maps[:, 1, 0], maps[:, 1, 1] = -turn.imag, turn.real - turn.imag * slope
    center = np.array([size[1] / 2, size[0] / 2])
    maps[:, :2, 2] = center - (maps[:, :2, :2] * center).sum(2)
    return maps


def color(batch: Pixels, rng: Generator, strength: float) -> Pixels:
    """Change brightness, contrast and saturation, each by a factor of 1 +- `strength`."""
    count = len(batch)
    matrix, share = color_maps(count, rng, strength)
    given, out = np.ascontiguousarray(batch), _output(batch.shape)
    shift = (share * means(given)[:, None, None] + 0.5).astype(np.float32)
    factors = np.ascontiguousarray(matrix, np.float32)
    addresses = (array.ctypes.data for array in (given, factors, shift, out))
    mix_colors()(*addresses, count, given[0].size // 3)
    return out


def means(batch: Pixels) -> Doubles:
    """Return the mean of each image (B,)."""
    count, height, width = _shape(batch)
    parts = np.empty((count, height, LANES), np.float32)
    summing()(batch.ctypes.data, parts.ctypes.data, count * height, width * 3)
    found: Doubles = parts.sum((1, 2), np.float64) / batch[0].size
    return found


def color_maps(count: int, rng: Generator, strength: float) -> tuple[Doubles, Doubles]:
    """Draw the matrix (B, 3, 3) of each image's colors, and its mean's share (B, 1, 1) of it."""
    bright, contrast, saturation = rng.uniform(1 - strength, 1 + strength, (3, count, 1, 1))
    # saturation s is x -> s x + (1 - s) grey(x): one 3 x 3 matrix; contrast turns about the mean
    luma = np.full((3, 3), [[0.299], [0.587], [0.114]])
    matrix = (saturation * np.eye(3) + (1 - saturation) * luma) * contrast * bright
    return matrix, (1 - contrast) * bright


def cutout(batch: Pixels, rng: Generator, share: float) -> Pixels:
    """Paint a grey square of `share` of the shorter side (DeVries and Taylor, 2017)."""
    out = batch.copy()
    for i, (top, left, bottom, right) in enumerate(squares(_shape(batch), rng, share).tolist()):
        out[i, max(top, 0) : bottom, max(left, 0) : right] = GREY
    return out


def squares(shape: Shape, rng: Generator, share: float) -> npt.NDArray[np.int64]:
    """Draw the square (B, 4) of each image: top, left, bottom, right, partly outside maybe."""
    side = round(share * min(shape[1:]))
    corner = [rng.integers(-side // 2, edge - side // 2, shape[0]) for edge in shape[1:]]
    return np.stack([*corner, *(place + side for place in corner)], 1)


def mixup(batch: Pixels, targets: Targets, rng: Generator, alpha: float) -> tuple[Pixels, Targets]:
    """Blend each image and target with another's (Zhang et al., "mixup", 2018)."""
    weight = float(rng.beta(alpha, alpha))
    partner = rng.permutation(len(batch))
    one, other, out = np.ascontiguousarray(batch), batch[partner], _output(batch.shape)
    addresses = (array.ctypes.data for array in (one, other, out))
    blending()(*addresses, batch.size // 3, weight)
    mixed = targets * np.float32(weight) + targets[partner] * np.float32(1 - weight)
    return out, mixed


def cutmix(
    batch: Pixels, targets: Targets, rng: Generator, chance: float
) -> tuple[Pixels, Targets]:
    """With a chance, put a box of another image into each (Yun et al., "CutMix", 2019)."""
    (top, left, bottom, right), partner = cutmix_box(_shape(batch), rng, chance)
    if top == bottom:
        return batch, targets
    out = batch.copy()
    out[:, top:bottom, left:right] = batch[partner, top:bottom, left:right]
    kept = kept_share(_shape(batch), (top, left, bottom, right))
    return out, targets * kept + targets[partner] * (1 - kept)


def cutmix_box(
    shape: Shape, rng: Generator, chance: float
) -> tuple[tuple[int, int, int, int], npt.NDArray[np.int64]]:
    """Draw the box (top, left, bottom, right) of a batch, empty or not, and partners (B,)."""
    count, height, width = shape
    if rng.random() >= chance:
        return (0, 0, 0, 0), np.arange(count)
    side = (1 - rng.random()) ** 0.5
    box_h, box_w = round(height * side), round(width * side)
    top = int(rng.integers(0, height - box_h + 1))
    left = int(rng.integers(0, width - box_w + 1))
    return (top, left, top + box_h, left + box_w), rng.permutation(count)


def kept_share(shape: Shape, box: tuple[int, int, int, int]) -> np.float32:
    """Return the share of an image that is outside a box."""
    top, left, bottom, right = box
    return np.float32(1 - (bottom - top) * (right - left) / (shape[1] * shape[2]))


def degrade(batch: Pixels, rng: Generator, chance: float, how: "Degradation") -> Pixels:
    """With a chance, make each image worse by `how`, at a strength drawn evenly from 0 to 1."""
    out = batch.copy()
    chosen = np.flatnonzero(rng.random(len(batch)) < chance)
    for i, strength in zip(chosen, rng.random(len(chosen)).tolist(), strict=True):
        out[i] = how(batch[i], strength, rng)
    return out


def blur(image: Pixels, strength: float, rng: Generator) -> Pixels:
    """Blur an image (H, W, 3) by a Gaussian of a radius of 0.3 to 1.3 pixels."""
    gaussian = ImageFilter.GaussianBlur(SHARPEST + strength)
    return np.asarray(Image.fromarray(image).filter(gaussian))


def darken(image: Pixels, strength: float, rng: Generator) -> Pixels:
    """Take up to 80 % of the light of an image, and bend it by a gamma of 0.7 to 1.4."""
    return tone_curve(strength, rng)[image]


def tone_curve(strength: float, rng: Generator) -> Pixels:
    """Draw what each of the 256 values of a pixel becomes."""
    light = np.linspace(0, 1, 256) ** rng.uniform(0.7, 1.4)
    return np.round((255 - 204 * strength) * light).astype(np.uint8)


def add_noise(image: Pixels, strength: float, rng: Generator) -> Pixels:
    """Add a sensor's noise of a standard deviation of up to 30 of 255, in whole numbers."""
    noisy: Pixels = np.clip(image + noise(image.shape, strength, rng), 0, 255).astype(np.uint8)
    return noisy


def noise(shape: tuple[int, ...], strength: float, rng: Generator) -> npt.NDArray[np.int32]:
    """Draw a sensor's noise, at most 75 either way."""
    pair = rng.integers(0, 256, (2, *shape), np.uint8).astype(np.int32)
    scale = round(30 * strength / 104.5 * 256)  # 104.5: the pair's own deviation
    drawn: npt.NDArray[np.int32] = (pair[0] - pair[1]) * scale >> 8
    return drawn


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
        maps = np.array([matrix(level * sign, image)])
        return Image.fromarray(warp(np.asarray(image)[None], maps)[0])

    return apply


def _turn(level: float, image: Image.Image) -> tuple[float, ...]:
    maps = turn_and_shear(np.array([30 * level]), np.zeros(1), (image.height, image.width))
    return tuple(maps[0, :2].reshape(6).tolist())


Operation = Callable[[Image.Image, float, int], Image.Image]
RANDAUGMENT: dict[str, Operation] = {
    "identity": lambda image, level, sign: image,
    "autocontrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "rotate": _warped(_turn),
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
    batch: Pixels, targets: Targets, rng: Generator, knobs: Augment, finer: int = 1
) -> tuple[Pixels, Targets]:
    """Apply what a recipe switches on, geometry first, mixing last.

    The images of a batch may be `finer`, by whole times, than those that come out.
    """
    still = np.zeros((len(batch), 2), np.int64)
    mirrored = mirrors(len(batch), rng, knobs)
    shifted = still
    if finer > 1 or moves(knobs):
        count, height, width = _shape(batch)
        maps = source_maps((count, height // finer, width // finer), rng, knobs)
        batch, mirrored = warp(move(batch, mirrored, still), maps, finer), still > 0
    if knobs.translate:
        shifted = shifts(_shape(batch), rng, knobs.translate)
    batch = move(batch, mirrored, shifted)
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


def scaled(batch: Pixels) -> npt.NDArray[np.float32]:
    """Return what `images.normalize` makes of a batch, in one pass."""
    given, out = np.ascontiguousarray(batch), np.empty(batch.shape, np.float32)
    scaling()(given.ctypes.data, out.ctypes.data, batch.size, 2 / 255)
    return out.transpose(0, 3, 1, 2)


def _output(shape: tuple[int, ...]) -> Pixels:
    """Return the memory of what a kernel makes: images of as many pixels as it takes at a time."""
    if shape[1] * shape[2] < LANES:
        raise ValueError(f"images of {shape[1]} x {shape[2]} pixels; a kernel takes {LANES}")
    return np.empty(shape, np.uint8)


def _readable(batch: Pixels) -> Pixels:
    """Return a batch as one row, and a byte after it."""
    row = np.empty(batch.size + 1, np.uint8)
    row[:-1] = batch.reshape(-1)
    return row


def _shape(batch: Pixels) -> Shape:
    count, height, width, _ = batch.shape
    return count, height, width
