"""The device's augmentation against the processor's, from the same address, pixel by pixel."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from small_job import AUGMENT

from weighin.determinism import generator
from weighin.params import Augment
from weighin.training.augment import augment
from weighin.training.device_trainer import apply, draw, on_processor

OFF = replace(AUGMENT, flip=0.0, translate=0.0, color=0.0)
COUNT, HEIGHT, WIDTH = SHAPE = (32, 24, 36)
TARGETS = np.eye(3, dtype=np.float32)[np.arange(COUNT) % 3]
EXACT = {
    "flip": 0.5, "flip_vertical": 0.5, "translate": 0.2, "dark": 0.7, "noise": 0.7, "cutout": 0.5,
    "mixup": 0.4, "cutmix": 1.0,
}  # fmt: skip
# within one level, but for so many values in a million: a pixel on the border of the grey
CLOSE = {"crop": (0.5, 0), "rotate": (20.0, 100), "shear": (10.0, 100), "color": (0.4, 0),
         "blur": (0.7, 0)}  # fmt: skip


def smooth_pictures() -> npt.NDArray[np.uint8]:
    small = generator("device").integers(0, 256, (COUNT, 6, 9, 3), np.uint8)
    sized = [
        Image.fromarray(one).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for one in small
    ]
    return np.stack([np.asarray(one) for one in sized])


IMAGES = smooth_pictures()


def on_device(
    knobs: Augment, address: int, chosen: slice = slice(None)
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Return the device's images (B, H, W, 3) and targets."""
    drawn = draw(SHAPE, generator("x", address), knobs)
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
    tensors = {name: torch.from_numpy(array)[chosen] for name, array in drawn.items()}
    found, targets = apply(images[chosen], torch.from_numpy(TARGETS)[chosen], tensors)
    return found.permute(0, 2, 3, 1).numpy(), targets.numpy()


def on_cpu(knobs: Augment, address: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    images, targets = augment(IMAGES, TARGETS, generator("x", address), knobs)
    return images.astype(np.float64), targets


@pytest.mark.parametrize("name", EXACT)
def test_whole_numbers_are_the_same(name: str) -> None:
    knobs = replace(OFF, **{name: EXACT[name]})
    for address in range(5):
        images, targets = on_device(knobs, address)
        wanted, wanted_targets = on_cpu(knobs, address)
        np.testing.assert_array_equal(images, wanted)
        np.testing.assert_allclose(targets, wanted_targets, atol=1e-7)
        assert (wanted != IMAGES).any()
        assert (images != on_device(knobs, address + 100)[0]).any()  # another address


@pytest.mark.parametrize("name", CLOSE)
def test_what_interpolates_is_within_one_level(name: str) -> None:
    value, beyond = CLOSE[name]
    knobs = replace(OFF, **{name: value})
    for address in range(5):
        images, targets = on_device(knobs, address)
        wanted, wanted_targets = on_cpu(knobs, address)
        off = np.abs(images - wanted)
        assert (off > 1).mean() <= beyond / 1e6
        assert off.mean() < 0.25 and np.abs(wanted - IMAGES).mean() > 1
        np.testing.assert_array_equal(targets, wanted_targets)
        assert np.abs(images - on_cpu(knobs, address + 100)[0]).mean() > 1  # another address


@pytest.mark.parametrize("name", ["crop", "rotate"])
def test_finer_images_are_averaged_within_one_level(name: str) -> None:
    knobs = replace(OFF, flip=0.5, **{name: CLOSE[name][0]})
    shape = (COUNT, HEIGHT // 2, WIDTH // 2)
    for address in range(5):
        drawn = draw(shape, generator("x", address), knobs)
        tensors = {key: torch.from_numpy(array) for key, array in drawn.items()}
        images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
        found = apply(images, torch.from_numpy(TARGETS), tensors, 2)[0].permute(0, 2, 3, 1).numpy()
        wanted, _ = augment(IMAGES, TARGETS, generator("x", address), knobs, 2)
        assert found.shape == wanted.shape == (*shape, 3)
        assert (np.abs(found - wanted) > 1).mean() <= 5e-4
        assert np.abs(found - wanted).mean() < 0.25


def test_all_together_draw_from_the_address_in_the_processors_order() -> None:
    values = {name: part[0] for name, part in CLOSE.items()}
    knobs = replace(OFF, **(EXACT | values))
    for address in range(3):
        images, targets = on_device(knobs, address)
        wanted, wanted_targets = on_cpu(knobs, address)
        assert np.abs(images - wanted).mean() < 1.5
        np.testing.assert_allclose(targets, wanted_targets, atol=1e-6)
        assert np.abs(images - on_cpu(knobs, address + 100)[0]).mean() > 10


def test_nothing_on_is_the_identity() -> None:
    images, targets = on_device(OFF, 0)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)
    assert draw(SHAPE, generator(0), OFF) == {}


def test_an_image_does_not_depend_on_its_neighbors() -> None:
    values = {name: part[0] for name, part in CLOSE.items()} | {"flip": 0.5, "translate": 0.2}
    knobs = replace(OFF, **values)
    np.testing.assert_array_equal(on_device(knobs, 1)[0][:5], on_device(knobs, 1, slice(0, 5))[0])


def test_jpeg_and_randaugment_are_the_processors() -> None:
    assert on_processor(replace(OFF, jpeg=0.1)) and on_processor(replace(OFF, randaugment=1))
    assert not on_processor(replace(OFF, **EXACT))
