"""The changes of augment.py as torch operations, for images that live on a GPU.

`draw` takes the same random numbers from the same address, on the processor: some tens of numbers
an image. `apply` is a pure function of them and of the pixels, so it can be part of a CUDA graph.
Whole numbers come out as augment.py's; what interpolates is within one level of them.

RandAugment, JPEG and new backgrounds have no such form: a recipe with one of them has its images
changed on the processor, and only the pixels go to the GPU.

Shapes: B images of H x W pixels, K classes. Images are float32 (B, 3, H, W) of whole numbers from 0
to 255.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from weighin.params import Augment
from weighin.training import augment
from weighin.training.augment import GREY, SHARPEST, Shape

Draws = dict[str, npt.NDArray[Any]]  # each (B, ...)
Drawn = Mapping[str, Tensor]


def on_processor(knobs: Augment) -> bool:
    """Whether a recipe has a change that is made on the processor alone."""
    return bool(knobs.randaugment or knobs.jpeg or knobs.background)


def draw(shape: Shape, rng: Generator, knobs: Augment) -> Draws:
    """Return what `augment.augment` draws for a batch of a shape, in its order."""
    count, draws = shape[0], Draws()
    if knobs.flip or knobs.flip_vertical:
        draws["mirrored"] = augment.mirrors(count, rng, knobs)
    if augment.moves(knobs):
        draws["map"] = augment.source_maps(shape, rng, knobs).astype(np.float32)
    if knobs.translate:
        draws["shift"] = augment.shifts(shape, rng, knobs.translate)
    if knobs.color:
        matrix, share = augment.color_maps(count, rng, knobs.color)
        draws |= {"color": matrix.astype(np.float32), "mean": share[:, 0, 0]}
    draws |= _draw_degradations(shape, rng, knobs)
    if knobs.cutout:
        draws["cutout"] = augment.squares(shape, rng, knobs.cutout)
    if knobs.mixup:
        draws["mixup"] = np.full(count, rng.beta(knobs.mixup, knobs.mixup), np.float32)
        draws["mixup_partner"] = rng.permutation(count)
    if knobs.cutmix:
        box, partner = augment.cutmix_box(shape, rng, knobs.cutmix)
        draws |= {"cutmix": np.tile(box, (count, 1)), "cutmix_partner": partner}
        draws["cutmix_kept"] = np.full(count, augment.kept_share(shape, box))
    return draws


def _draw_degradations(shape: Shape, rng: Generator, knobs: Augment) -> Draws:
    """Draw the blur, light and noise of the images that have any; others are left alone."""
    count, height, width = shape
    found: Draws = {
        "blur": np.zeros(count, np.float32),
        "dark": np.tile(np.arange(256, dtype=np.uint8), (count, 1)),
        "noise": np.zeros((count, height, width, 3), np.int8),
    }
    draws = {name: array for name, array in found.items() if getattr(knobs, name)}
    for name, array in draws.items():
        chosen = np.flatnonzero(rng.random(count) < getattr(knobs, name))
        for i, strength in zip(chosen, rng.random(len(chosen)).tolist(), strict=True):
            if name == "blur":
                array[i] = _neighbor_weight(SHARPEST + strength)
            elif name == "dark":
                array[i] = augment.tone_curve(strength, rng)
            else:
                array[i] = augment.noise((height, width, 3), strength, rng)
    return draws


def _neighbor_weight(radius: float) -> float:
    """Return a neighbor's weight over the middle's in each of Pillow's three box blurs.

    Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering",
    2011; a radius under 1.4 pixels makes boxes of under three.
    """
    variance = radius**2 / 3
    return 0.5 * variance / (1 - variance)


def apply(images: Tensor, targets: Tensor, drawn: Drawn, finer: int = 1) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, H, W) and targets (B, K) changed as drawn.

    The images that come in may be `finer` times larger a side; then they are moved by maps.
    """
    if "mirrored" in drawn:
        for axis, chosen in enumerate(drawn["mirrored"].unbind(1)):
            images = torch.where(_column(chosen), images.flip(2 + axis), images)
    if "map" in drawn:
        images = _warped(images, drawn["map"], finer)
    if "shift" in drawn:
        images = _shifted(images, drawn["shift"])
    if "color" in drawn:
        images = _colored(images, drawn["color"], drawn["mean"])
    if "blur" in drawn:
        images = _blurred(images, drawn["blur"])
    if "dark" in drawn:
        curve = drawn["dark"].float().gather(1, images.flatten(1).long())
        images = curve.view(images.shape)
    if "noise" in drawn:
        images = (images + drawn["noise"].permute(0, 3, 1, 2)).clamp(0, 255)
    if "cutout" in drawn:
        grey = images.new_full((), GREY)
        images = torch.where(_inside(drawn["cutout"], images), grey, images)
    if "mixup" in drawn:
        weight, partner = drawn["mixup"], drawn["mixup_partner"]
        blended = images * _column(weight) + images[partner] * (1 - _column(weight)) + 0.5
        images, targets = blended.floor(), _mixed(targets, weight, partner)
    if "cutmix" in drawn:
        partner = drawn["cutmix_partner"]
        images = torch.where(_inside(drawn["cutmix"], images), images[partner], images)
        targets = _mixed(targets, drawn["cutmix_kept"], partner)
    return images, targets


def _warped(images: Tensor, maps: Tensor, finer: int) -> Tensor:
    """Return each image through its map (B, 6) from an output pixel to its source."""
    height, width = (side // finer for side in images.shape[2:])
    a, b, c, d, e, f = (_column(part)[:, 0] for part in maps.unbind(1))  # (B, 1, 1)
    y, x = (torch.arange(side, device=images.device)[:, None] for side in (height, width))
    grey, total = images.new_full((), GREY), images.new_zeros(())
    places = [(2 * place + 1) / (2 * finer) for place in range(finer)]
    for across, along in itertools.product(places, places):
        down, right = y + across, x.T + along
        from_x, from_y = a * right + b * down + c, d * right + e * down + f  # (B, H, W)
        inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
        sides = (from_x * 2 / width - 1, from_y * 2 / height - 1)
        grid = torch.stack([side.expand(len(images), height, width) for side in sides], 3)
        sampled = F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
        total = total + torch.where(inside[:, None], sampled, grey)
    return (total / finer**2 + 0.5).floor()


def _shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Return images whose windows moved by whole pixels (B, 2); edges are reflected."""
    rows, columns = (
        _reflected(torch.arange(side, device=images.device) + shift[:, None], side)
        for side, shift in zip(images.shape[2:], shifts.unbind(1), strict=True)
    )
    which = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _reflected(places: Tensor, side: int) -> Tensor:
    return side - 1 - (side - 1 - places.abs()).abs()


def _colored(images: Tensor, matrix: Tensor, share: Tensor) -> Tensor:
    """Return images times their matrices (B, 3, 3), plus a share (B,) of their mean."""
    mean = images.flatten(1).sum(1, dtype=torch.float64) / images[0].numel()
    shift = (share * mean + 0.5).float()
    red, green, blue = images.unbind(1)  # sums written out: a matrix product's depends on B
    mixed = [
        red * _column(matrix[:, 0, i])[:, 0]
        + green * _column(matrix[:, 1, i])[:, 0]
        + blue * _column(matrix[:, 2, i])[:, 0]
        + _column(shift)[:, 0]
        for i in range(3)
    ]
    return torch.stack(mixed, 1).clamp(0, 255).floor()


def _blurred(images: Tensor, weights: Tensor) -> Tensor:
    """Return images after three boxes a direction, a neighbor's weight (B,) over the middle's."""
    weight = _column(weights)
    for pad in ((1, 1, 0, 0), (0, 0, 1, 1)):
        dim = 3 if pad[0] else 2
        for _ in range(3):
            around = F.pad(images, pad, "replicate")
            before = around.narrow(dim, 0, images.shape[dim])
            after = around.narrow(dim, 2, images.shape[dim])
            summed = (images + weight * (before + after)) / (1 + 2 * weight)
            images = (summed + 0.5).floor()
    return images


def _inside(boxes: Tensor, images: Tensor) -> Tensor:
    """Return which pixels (B, 1, H, W) are in each image's box (top, left, bottom, right)."""
    top, left, bottom, right = (_column(side) for side in boxes.unbind(1))
    y, x = (torch.arange(side, device=images.device) for side in images.shape[2:])
    y = y[:, None]
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def _mixed(targets: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    return targets * weight[:, None] + targets[partner] * (1 - weight[:, None])


def _column(values: Tensor) -> Tensor:
    """Return one value an image (B,) as (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
