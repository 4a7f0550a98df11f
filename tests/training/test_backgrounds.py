"""New backgrounds in training: which images get one, from where, and that history is no input."""

from dataclasses import replace

import numpy as np
from small_job import AUGMENT, RECIPE

from weighin.determinism import generator
from weighin.images import Pixels, normalize
from weighin.training.dataset import Backgrounds, Dataset

Y, X = np.mgrid[:24, :32]
DISK = (Y - 11.5) ** 2 + (X - 15.5) ** 2 < 7**2
CORE = (Y - 11.5) ** 2 + (X - 15.5) ** 2 < 4**2


def images(count: int = 8) -> Pixels:
    """Return disks on paper, each of its own grey; every fourth is noise all over."""
    made = np.full((count, 24, 32, 3), 230, np.uint8)
    for i, image in enumerate(made):
        image[DISK] = 20 + 10 * i
        if i % 4 == 3:
            image[:] = np.random.default_rng(i).integers(0, 256, image.shape, np.uint8)
    return made


def replaced(chance: float, address: int) -> Pixels:
    return Backgrounds(images()).replaced(np.arange(8), generator("background", address), chance)


def test_objects_stay_and_plain_backgrounds_go() -> None:
    """A close-up may show the same paper: of ten new backgrounds some are others."""
    before, after = images(), np.stack([replaced(1.0, number) for number in range(10)])
    for i in range(8):
        if i % 4 == 3:
            assert (after[:, i] == before[i]).all()
        else:
            assert (after[:, i][:, CORE] == before[i][CORE]).all()
            assert (after[:, i, [0, -1], [0, -1]] != 230).any(axis=(1, 2)).sum() >= 4


def test_a_new_background_is_one_color_or_a_close_up_of_the_batch() -> None:
    """Noise has no plain background, so that no mask lets it through: its close-ups show as noise.

    Of 600, a fifth are of one color: 120; another 120 show noise, being close-ups of two images of
    eight; both within three deviations of 9.8. The rest show paper or disks.
    """
    rows = [replaced(1.0, number)[i][0] for number in range(100) for i in range(8) if i % 4 != 3]
    colored = sum(len(np.unique(row, axis=0)) == 1 and len({*row[0].tolist()}) > 1 for row in rows)
    noisy = sum(len(np.unique(row, axis=0)) > 24 for row in rows)
    assert len(rows) == 600
    assert 90 <= colored <= 150
    assert 90 <= noisy <= 150


def test_the_chance_is_kept_and_none_changes_nothing() -> None:
    np.testing.assert_array_equal(replaced(0.0, 1), images())
    changed = [
        (one != two).any()
        for number in range(100)
        for i, (one, two) in enumerate(zip(replaced(0.3, number), images(), strict=True))
        if i % 4 != 3
    ]
    assert 180 - 34 <= sum(changed) <= 180 + 34  # three deviations of 11.2


def test_what_was_asked_before_changes_nothing() -> None:
    """Masks are kept: a process that has seen other images first gives the same pixels."""
    chosen = np.array([6, 2, 0, 5])
    fresh = Backgrounds(images()).replaced(chosen, generator("b", 1), 1.0)
    used = Backgrounds(images())
    used.replaced(np.array([5, 1, 3, 6]), generator("b", 0), 1.0)
    np.testing.assert_array_equal(used.replaced(chosen, generator("b", 1), 1.0), fresh)
    assert (used.replaced(chosen, generator("b", 2), 1.0) != fresh).any()


def test_a_shard_puts_objects_on_new_backgrounds_before_all_else() -> None:
    off = replace(AUGMENT, flip=0.0, translate=0.0, color=0.0)
    recipe = replace(RECIPE, balance=0.0, augment=replace(off, background=1.0))
    made = Dataset({(24, 32): images()}, np.zeros(8, np.int64), 1, recipe, (1, "t"))
    order = made.order(0)
    chosen, rng = made.address_of(order, 0, 0, 1)
    expected = Backgrounds(images()).replaced(chosen, rng, 1.0)
    found = made.shard(order, 0, 0, 1, (24, 32)).inputs
    np.testing.assert_array_equal(found.numpy(), normalize(expected))


def test_finer_images_take_the_masks_of_what_the_network_sees() -> None:
    fine = images().repeat(2, 1).repeat(2, 2)
    masks = Backgrounds(fine, finer=2)
    after = [masks.replaced(np.arange(8), generator("f", number), 1.0) for number in range(10)]
    core = CORE.repeat(2, 0).repeat(2, 1)
    for i in (0, 1, 2, 4):
        assert all((one[i][core] == fine[i][core]).all() for one in after)
        assert any((one[i][[0, -1], [0, -1]] != 230).any() for one in after)
