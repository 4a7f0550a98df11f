"""Random changes of a batch: inputs untouched, exact pixels on tiny arrays."""

import io
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from small_job import AUGMENT, picture

from weighin.determinism import generator
from weighin.images import normalize
from weighin.training import augment as a
from weighin.training.augment import GREY, RANDAUGMENT, WEAKER, augment, weaker

OFF = replace(AUGMENT, flip=0.0, translate=0.0, color=0.0)
EVERY = replace(
    OFF, flip=0.5, flip_vertical=0.5, translate=0.2, crop=0.5, rotate=20.0, shear=5.0,
    color=0.4, cutout=0.3, mixup=0.4, cutmix=1.0, randaugment=2, magnitude=9,
)  # fmt: skip
BATCH = np.stack([picture("train", i, (16, 12)) for i in range(6)])
TARGETS = np.eye(3, dtype=np.float32)[np.arange(6) % 3]
ON = {
    "flip": {"flip": 1.0}, "flip_vertical": {"flip_vertical": 1.0}, "translate": {"translate": 0.2},
    "crop": {"crop": 0.5}, "rotate": {"rotate": 20.0}, "shear": {"shear": 10.0},
    "color": {"color": 0.4}, "cutout": {"cutout": 0.5}, "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0}, "blur": {"blur": 1.0}, "dark": {"dark": 1.0},
    "noise": {"noise": 1.0}, "jpeg": {"jpeg": 1.0},
    "randaugment": {"randaugment": 2, "magnitude": 9},
}  # fmt: skip


def rng(*address: int | str) -> np.random.Generator:
    return generator("augment", *address)


def test_a_share_of_the_changes() -> None:
    most = dict.fromkeys(WEAKER, 0.4) | {"rotate": 20.0, "mixup": 2.0}
    strong = replace(AUGMENT, flip=0.5, crop=0.2, magnitude=10, **most)
    half = {name: value / 2 for name, value in most.items()}
    assert weaker(strong, 1.0) == strong
    assert weaker(strong, 0.5) == replace(strong, crop=0.6, magnitude=5, **half)
    assert weaker(strong, 0.0) == replace(
        strong, crop=1.0, magnitude=0, **dict.fromkeys(WEAKER, 0.0)
    )
    kept = {"flip", "flip_vertical", "randaugment", "crop", "magnitude"}
    assert {*WEAKER} | kept == {field.name for field in fields(strong)}  # none is forgotten


@pytest.mark.parametrize("name", ON)
def test_each_changes_a_copy_and_the_same_address_gives_the_same(name: str) -> None:
    images, targets = BATCH.copy(), TARGETS.copy()
    knobs = replace(OFF, **ON[name])
    first = augment(images, targets, rng(1), knobs)
    again = augment(images, targets, rng(1), knobs)
    np.testing.assert_array_equal(images, BATCH)
    np.testing.assert_array_equal(targets, TARGETS)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0].shape == BATCH.shape and first[0].dtype == np.uint8
    assert (first[0] != BATCH).any()
    assert (first[0] != augment(images, targets, rng(2), knobs)[0]).any() or "flip" in name


def test_every_target_stays_a_distribution() -> None:
    for number in range(20):
        _, targets = augment(BATCH, TARGETS, rng(number), EVERY)
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
        assert targets.dtype == np.float32 and (targets >= 0).all()


def test_nothing_on_is_the_identity() -> None:
    images, targets = augment(BATCH, TARGETS, rng(0), OFF)
    np.testing.assert_array_equal(images, BATCH)
    np.testing.assert_array_equal(targets, TARGETS)


def test_flips_mirror_the_chosen_ones() -> None:
    def flipped(number: int, **chances: float) -> np.ndarray[Any, Any]:
        return augment(BATCH, TARGETS, rng(number), replace(OFF, **chances))[0]

    np.testing.assert_array_equal(flipped(0, flip=1.0), BATCH[:, :, ::-1])
    np.testing.assert_array_equal(flipped(0, flip_vertical=1.0), BATCH[:, ::-1])
    np.testing.assert_array_equal(flipped(0, flip=1.0, flip_vertical=1.0), BATCH[:, ::-1, ::-1])
    chosen = rng(3).random(6) < 0.5
    half = flipped(3, flip=0.5)
    assert 0 < chosen.sum() < 6
    np.testing.assert_array_equal(half[chosen], BATCH[chosen][:, :, ::-1])
    np.testing.assert_array_equal(half[~chosen], BATCH[~chosen])


def test_translate_moves_whole_pixels_and_reflects() -> None:
    rows = np.arange(10, dtype=np.uint8).reshape(1, 1, 10, 1).repeat(2, axis=1).repeat(3, axis=3)
    knobs = replace(OFF, translate=0.2)
    moved = [augment(rows, TARGETS[:1], rng(i), knobs)[0][0] for i in range(60)]
    seen = {tuple(image[0, :, 0].tolist()) for image in moved}
    reflected = [2, 1, *range(10), 8, 7]
    assert seen == {tuple(reflected[left : left + 10]) for left in range(5)}
    assert all((image == image[:1, :, :1]).all() for image in moved)


@pytest.mark.parametrize("size", [(16, 12), (5, 7), (2, 9)])  # 17 pixels and more: no whole blocks
def test_a_move_is_a_flip_and_then_a_reflected_window(size: tuple[int, int]) -> None:
    batch = np.stack([picture("train", i, size) for i in range(6)])
    mirrored, shifted = rng(0).random((6, 2)) < 0.5, rng(1).integers(-1, 2, (6, 2))
    for before, after, (upside_down, left_right), (down, right) in zip(
        batch, a.move(batch, mirrored, shifted), mirrored, shifted, strict=True
    ):
        flipped = before[:: -1 if upside_down else 1, :: -1 if left_right else 1]
        wide = np.pad(flipped, ((1, 1), (1, 1), (0, 0)), "reflect")
        wanted = wide[1 + down : 1 + down + size[0], 1 + right : 1 + right + size[1]]
        np.testing.assert_array_equal(after, wanted)
    still = np.zeros((6, 2), np.int64)
    assert a.move(batch, still > 0, still) is batch


def test_means_and_floats_are_exact() -> None:
    bright = np.full((2, 1024, 1023, 3), 255, np.uint8)  # beyond what a float adds in ones
    bright[1, 5, 7] = 0
    for batch in (BATCH, BATCH[:, :7, :5].copy(), bright):
        sums = batch.reshape(len(batch), -1).sum(1, np.uint64)
        np.testing.assert_array_equal(a.means(batch), sums / batch[0].size)
    turned = BATCH[:, ::-1]  # not as it lies in memory
    np.testing.assert_array_equal(a.scaled(turned), normalize(turned))
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(a.scaled(every), normalize(every))


def test_no_kernel_writes_beyond_an_image_that_is_too_small() -> None:
    tiny = BATCH[:, :3, :5].copy()
    still = np.zeros((6, 2), np.int64)
    changes: list[Callable[[], Any]] = [
        lambda: a.move(tiny, still == 0, still),
        lambda: a.warp(tiny, np.tile((1.0, 0, 0, 0, 1, 0), (6, 1))),
        lambda: a.color(tiny, rng(0), 0.2),
        lambda: a.mixup(tiny, TARGETS, rng(0), 0.4),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="images of 3 x 5 pixels; a kernel takes 16"):
            change()


def test_crops_stay_inside_and_have_the_areas_they_may() -> None:
    size = 100
    ramp = np.zeros((1, size, size, 3), np.uint8)
    ramp[0, ..., 0], ramp[0, ..., 1] = np.arange(size)[:, None], np.arange(size)
    for number in range(50):
        out = augment(ramp, TARGETS[:1], rng(number), replace(OFF, crop=0.3))[0][0].astype(float)
        tall, wide = np.ptp(out[..., 0]) + 1, np.ptp(out[..., 1]) + 1
        assert 0.3 * 0.9 <= tall * wide / size**2 <= 1
        assert 0.75 * 0.9 <= tall / wide <= 1 / 0.75 / 0.9


def test_a_crop_is_pillows_resize_of_its_box() -> None:
    box = (2.25, 1.5, 8.75, 13.0)
    found = a.warp(BATCH, a.crop_maps((6, 16, 12), [box] * 6)[:, :2].reshape(6, 6))
    for before, after in zip(BATCH, found, strict=True):
        # Pillow keeps to the box, the map goes on beyond its edge: the outermost half pixels
        wanted = Image.fromarray(before).resize((12, 16), Image.Resampling.BILINEAR, box)
        off = np.abs(np.asarray(wanted).astype(int) - after)[1:-1, 1:-1]
        assert off.max() <= 1


def moved(*maps: float) -> np.ndarray[Any, Any]:
    return a.warp(BATCH, np.tile(maps, (6, 1)))


def test_warping_is_the_interpolation_written_out() -> None:
    maps = (0.9, 0.2, -1.3, -0.15, 1.1, 0.4)
    found = moved(*maps)
    p, q, r, s, t, u = np.float64(np.float32(maps))
    for y, x in np.ndindex(16, 12):
        to_x = p * (x + 0.5) + q * (y + 0.5) + r
        to_y = s * (x + 0.5) + t * (y + 0.5) + u
        if not (0 <= to_x < 12 and 0 <= to_y < 16):
            assert (found[:, y, x] == GREY).all()
            continue
        to_x, to_y = min(max(to_x - 0.5, 0), 11), min(max(to_y - 0.5, 0), 15)
        (left, along), (top, down) = divmod(to_x, 1), divmod(to_y, 1)
        columns, rows = (int(left), min(int(left) + 1, 11)), (int(top), min(int(top) + 1, 15))
        square = BATCH[:, rows][:, :, columns].astype(float)  # (6, 2, 2, 3)
        line = square[:, 0] * (1 - down) + square[:, 1] * down
        value = line[:, 0] * (1 - along) + line[:, 1] * along
        assert np.abs(found[:, y, x] - value).max() <= 0.501


def test_maps_of_whole_pixels_copy_them() -> None:
    np.testing.assert_array_equal(moved(1, 0, 0, 0, 1, 0), BATCH)
    np.testing.assert_array_equal(moved(1, 0, 3, 0, 1, 2)[:, :-2, :-3], BATCH[:, 2:, 3:])
    assert (moved(1, 0, 3, 0, 1, 2)[:, -2:] == GREY).all()
    half = a.turn_and_shear(np.full(6, 180.0), np.zeros(6), (16, 12))[:, :2].reshape(6, 6)
    np.testing.assert_array_equal(a.warp(BATCH, half), BATCH[:, ::-1, ::-1])


def test_finer_images_are_averaged_over_each_pixel() -> None:
    finer = np.stack([np.asarray(Image.fromarray(one).resize((36, 48))) for one in BATCH])
    still = np.tile([1, 0, 0, 0, 1, 0], (6, 1))
    squares = finer.reshape(6, 16, 3, 12, 3, 3).astype(float)
    assert np.abs(a.warp(finer, still, 3) - squares.mean((2, 4))).max() <= 0.501
    knobs = replace(OFF, crop=0.5, rotate=20.0, flip=0.5)
    out, _ = augment(finer, TARGETS, rng(0), knobs, 3)
    coarse, _ = augment(a.warp(finer, still, 3), TARGETS, rng(0), knobs)
    assert out.shape == BATCH.shape
    assert np.abs(out.astype(float) - coarse).mean() < 12  # the same crops
    assert np.std(out - out.mean((1, 2), keepdims=True)) > np.std(
        coarse - coarse.mean((1, 2), keepdims=True)
    )  # and sharper


def test_a_turn_of_a_crop_turns_what_was_cropped() -> None:
    knobs = replace(OFF, crop=0.5, rotate=20.0, shear=5.0)
    maps = a.source_maps((6, 16, 12), rng(0), knobs)
    again = rng(0)
    crops = a.crop_maps((6, 16, 12), a.crop_boxes((6, 16, 12), again, 0.5))
    turns = a.affine_maps((6, 16, 12), again, 20.0, 5.0)
    center = np.array([6.0, 8.0, 1.0])
    np.testing.assert_allclose(turns @ center, np.tile(center, (6, 1)), atol=1e-9)
    np.testing.assert_allclose(maps.reshape(6, 2, 3) @ center, (crops @ center)[:, :2], atol=1e-9)
    assert np.abs(maps.reshape(6, 2, 3) - crops[:, :2]).max() > 0.05


def test_grey_comes_in_from_outside() -> None:
    white = np.full((1, 20, 20, 3), 255, np.uint8)
    out = augment(white, TARGETS[:1], np.random.default_rng(5), replace(OFF, rotate=45.0))[0]
    assert (out[0, 0, 0] == GREY).all() and (out[0, 10, 10] == 255).all()


def test_an_image_is_what_it_is_alone() -> None:
    maps = a.source_maps((6, 16, 12), rng(1), replace(OFF, crop=0.5, rotate=20.0))
    for i in range(6):
        np.testing.assert_array_equal(
            a.warp(BATCH, maps)[i], a.warp(BATCH[i : i + 1], maps[i : i + 1])[0]
        )


def test_color_of_strength_zero_is_the_identity() -> None:
    np.testing.assert_array_equal(a.color(BATCH, rng(0), 0), BATCH)


class Factors:
    """Stands for a generator: brightness, contrast and saturation as given."""

    def __init__(self, *factors: float) -> None:
        self.factors = factors

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> Any:
        return np.broadcast_to(np.array(self.factors).reshape(3, 1, 1, 1), shape)


def pillow(kind: Callable[[Image.Image], Any], factor: float) -> np.ndarray:
    return np.stack([np.asarray(kind(Image.fromarray(x)).enhance(factor)) for x in BATCH])


@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_brightness_and_saturation_are_pillows_within_its_rounding(factor: float) -> None:
    bright = a.color(BATCH, Factors(factor, 1, 1), 1).astype(int)
    assert abs(bright - pillow(ImageEnhance.Brightness, factor)).max() <= 1
    saturated = a.color(BATCH, Factors(1, 1, factor), 1).astype(int)
    assert abs(saturated - pillow(ImageEnhance.Color, factor)).max() <= 1


def test_contrast_keeps_each_images_mean() -> None:
    out = a.color(BATCH, Factors(1, 0.5, 1), 1).astype(float)
    np.testing.assert_allclose(out.mean((1, 2, 3)), BATCH.mean((1, 2, 3)), atol=0.6)
    np.testing.assert_allclose(out.std((1, 2, 3)), BATCH.std((1, 2, 3)) / 2, atol=0.6)


def test_cutout_paints_at_most_its_square() -> None:
    white = np.full((200, 20, 30, 3), 255, np.uint8)
    painted = (a.cutout(white, rng(0), 0.5) == GREY).all(3)
    areas = painted.sum((1, 2))
    assert areas.max() == 100 and areas.min() >= 25
    assert (painted.any(2).sum(1) * painted.any(1).sum(1) == areas).all()  # rectangles


def test_mixup_blends_pairs_and_preserves_mass() -> None:
    blended, targets = a.mixup(BATCH, TARGETS, rng(4), 0.5)
    same = rng(4)
    weight, partner = np.float32(same.beta(0.5, 0.5)), same.permutation(6)
    expected = weight * BATCH + (1 - weight) * BATCH[partner].astype(np.float32)
    assert abs(blended - expected).max() <= 0.501
    both = weight * TARGETS + (1 - weight) * TARGETS[partner]
    np.testing.assert_allclose(targets, both, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(0), TARGETS.sum(0), rtol=1e-6)


def test_cutmix_labels_by_area() -> None:
    shades = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    flat = np.broadcast_to(shades, (6, 20, 10, 3)).copy()
    identity = np.eye(6, dtype=np.float32)
    for number in range(20):
        mixed, targets = a.cutmix(flat, identity, rng(number), 1)
        for image, target in zip(mixed, targets, strict=True):
            shares = np.bincount(image[..., 0].ravel(), minlength=6) / 200
            np.testing.assert_allclose(target, shares, atol=1e-6)
    same, _ = a.cutmix(flat, identity, rng(0), 0)
    assert same is flat


def test_randaugment_has_the_fourteen_operations_of_its_paper() -> None:
    colors = {"autocontrast", "brightness", "color", "contrast", "equalize", "sharpness"}
    depths, moves = {"posterize", "solarize"}, {"rotate", "translate-x", "translate-y"}
    assert RANDAUGMENT.keys() == colors | depths | moves | {"identity", "shear-x", "shear-y"}


@pytest.mark.parametrize("name", sorted(RANDAUGMENT.keys() - {"autocontrast", "equalize"}))
def test_an_operation_of_magnitude_zero_is_the_identity(name: str) -> None:
    image = Image.fromarray(BATCH[0])
    np.testing.assert_array_equal(np.asarray(RANDAUGMENT[name](image, 0.0, 1)), BATCH[0])


@pytest.mark.parametrize("name", sorted(RANDAUGMENT.keys() - {"identity"}))
def test_an_operation_of_full_magnitude_is_not(name: str) -> None:
    large = np.tile(BATCH[0], (3, 3, 1))
    assert (np.asarray(RANDAUGMENT[name](Image.fromarray(large), 1.0, 1)) != large).any()


def test_randaugment_of_no_operations_is_the_identity() -> None:
    np.testing.assert_array_equal(a.randaugment(BATCH, rng(0), 0, 30), BATCH)


def test_degrading_changes_the_chosen_ones_only() -> None:
    out = a.degrade(BATCH, rng(2), 0.5, a.darken)
    chosen = rng(2).random(6) < 0.5
    assert 0 < chosen.sum() < 6
    assert ((out != BATCH).any((1, 2, 3)) == chosen).all()
    np.testing.assert_array_equal(a.degrade(BATCH, rng(2), 0, a.darken), BATCH)


FLAT = np.full((80, 80, 3), 128, np.uint8)
EDGE = np.zeros((16, 16, 3), np.uint8)
EDGE[:, 8:] = 255


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_noise_has_its_deviation_and_no_bias(strength: float) -> None:
    added = a.add_noise(FLAT, strength, rng(0)).astype(float) - 128
    assert added.std() == pytest.approx(30 * strength, rel=0.03)
    assert abs(added.mean()) < 1
    assert (a.add_noise(np.full_like(FLAT, 250), 1.0, rng(0)) <= 255).all()  # clipped, not wrapped
    assert a.add_noise(np.full_like(FLAT, 250), 1.0, rng(0)).min() > 150


def test_darkness_is_a_falling_share_of_the_light_and_keeps_the_order_of_tones() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    tops = [int(a.darken(ramp, strength, rng(1)).max()) for strength in (0.0, 0.5, 1.0)]
    assert tops == [255, 153, 51]
    assert (np.diff(a.darken(ramp, 0.7, rng(3))[..., 0].ravel().astype(int)) >= 0).all()


def test_blur_softens_an_edge_and_keeps_its_mean() -> None:
    widths = [int((a.blur(EDGE, s, rng(0))[8, :, 0] % 255 > 0).sum()) for s in (0.0, 1.0)]
    assert 0 < widths[0] < widths[1]
    assert a.blur(EDGE, 1.0, rng(0)).mean() == pytest.approx(EDGE.mean(), abs=2)


def test_compression_loses_what_pillow_loses_at_that_quality() -> None:
    for strength, quality in ((0.0, 80), (1.0, 20)):
        file = io.BytesIO()
        Image.fromarray(BATCH[0]).save(file, "JPEG", quality=quality)
        ours, theirs = (
            abs(x.astype(int) - BATCH[0]).mean()
            for x in (a.compress(BATCH[0], strength, rng(0)), np.asarray(Image.open(file)))
        )
        assert ours == pytest.approx(theirs, rel=0.1)
