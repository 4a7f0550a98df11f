"""Plain backgrounds are found by hand-made pictures; an image on another keeps its object."""

import numpy as np
import pytest
from PIL import Image

from weighin.images import Pixels
from weighin.training.dataset import on_background, plain_background

SIDE = 32
Y, X = np.mgrid[:SIDE, :SIDE]
DISK = (Y - 15.5) ** 2 + (X - 15.5) ** 2 < 8**2


def scene(background: Pixels | int, thing: Pixels | int) -> Pixels:
    """Return a disk on a background, either of them grey or a picture."""
    pixels = np.broadcast_to(np.asarray(background, np.uint8), (SIDE, SIDE, 3)).copy()
    pixels[DISK] = np.broadcast_to(np.asarray(thing, np.uint8), (SIDE, SIDE, 3))[DISK]
    return pixels


def background_of(image: Pixels) -> Pixels:
    mask = plain_background(image)
    assert mask is not None
    return np.asarray(mask)


@pytest.mark.parametrize(("paper", "thing"), [(230, 40), (20, 200), (128, 90)])
def test_all_but_a_disk_is_background(paper: int, thing: int) -> None:
    """Within the disk less its rim it is 0, beyond a pixel around it 255; the edge is blurred."""
    found = background_of(scene(paper, thing))
    distance = ((Y - 15.5) ** 2 + (X - 15.5) ** 2) ** 0.5
    assert set(found[distance < 6].tolist()) == {0}
    assert set(found[distance > 10].tolist()) == {255}
    assert 0 < found[(distance > 7) & (distance < 9)].mean() < 255


def test_uneven_light_is_still_one_background() -> None:
    light = np.repeat((180 + X)[..., None], 3, 2)
    assert background_of(scene(light, 40))[0, [0, -1]].tolist() == [255, 255]


def test_an_object_of_the_background_s_color_inside_another_is_not_background() -> None:
    """What the background's color does not reach from the edge belongs to the object."""
    image = scene(230, 40)
    image[13:19, 13:19] = 230
    assert set(background_of(image)[13:19, 13:19].ravel().tolist()) == {0}


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8),  # no plain edge
        np.full((SIDE, SIDE, 3), 200, np.uint8),  # nothing on it
        np.where((X % 8 < 4)[..., None], 230, 20).astype(np.uint8).repeat(3, 2),  # stripes
    ],
    ids=["noise", "empty", "stripes"],
)
def test_no_plain_background_is_found_where_there_is_none(image: Pixels) -> None:
    assert plain_background(image) is None


def test_the_object_keeps_its_pixels_and_the_rest_is_the_new_background() -> None:
    image, new = scene(230, 40), np.full((SIDE, SIDE, 3), (10, 20, 30), np.uint8)
    mask = plain_background(image)
    assert mask is not None
    made, weight = on_background(image, mask, Image.fromarray(new)), np.asarray(mask)[..., None]
    assert made[16, 16].tolist() == [40, 40, 40]
    assert made[0, 0].tolist() == [10, 20, 30]
    mixed = np.round((new * weight.astype(float) + image * (255.0 - weight)) / 255)
    assert np.abs(made - mixed).max() <= 1


def test_a_mask_of_a_smaller_image_serves_a_larger_one() -> None:
    image, mask = scene(230, 40), plain_background(scene(230, 40))
    assert mask is not None
    large = image.repeat(2, 0).repeat(2, 1)
    made = on_background(large, mask, Image.new("RGB", (64, 64), (10, 20, 30)))
    assert made.shape == (64, 64, 3)
    assert (made[33, 33].tolist(), made[1, 1].tolist()) == ([40] * 3, [10, 20, 30])
