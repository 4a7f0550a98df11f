"""Which images are in which shard, and the shard as tensors."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_job import AUGMENT, RECIPE, picture

from weighin.determinism import generator
from weighin.images import normalize
from weighin.training.augment import augment
from weighin.training.dataset import Dataset

OFF = replace(AUGMENT, flip=0.0, translate=0.0, color=0.0)
PLAIN = replace(RECIPE, balance=0.0, augment=OFF)
LABELS = np.array([0] * 32 + [1] * 24 + [2] * 8)
IMAGES = np.stack([picture("train", i, (12, 12)) for i in range(64)])


def dataset(count: int = 64, classes: int = 3, **changes: object) -> Dataset:
    images = {(12, 12): IMAGES[:count]}
    return Dataset(images, LABELS[:count], classes, replace(PLAIN, **changes), (1, "t"))


def test_an_epoch_is_a_permutation_and_no_two_are_alike() -> None:
    made = dataset()
    assert (made.batch, made.steps) == (16, 4)
    first, second = made.order(0), made.order(1)
    assert sorted(first) == sorted(second) == list(range(64))
    assert (first != second).any()
    np.testing.assert_array_equal(first, dataset().order(0))


def test_the_rest_of_a_last_batch_waits_for_another_epoch() -> None:
    few = dataset(40)
    assert few.steps == 2
    assert len(set(few.order(0).tolist())) == 32


def test_fewer_images_than_a_batch_are_repeated_evenly() -> None:
    few = dataset(5)
    counts = Counter(few.order(0).tolist())
    assert sum(counts.values()) == 16 and set(counts.values()) == {3, 4}


@pytest.mark.parametrize(
    ("balance", "expected"), [(1.0, [64 / 3] * 3), (0.5, [27.05, 23.43, 13.52])]
)
def test_balanced_classes_come_in_their_shares(balance: float, expected: list[float]) -> None:
    weights = np.array([32, 24, 8]) ** (1 - balance)
    np.testing.assert_allclose(64 * weights / weights.sum(), expected, atol=0.01)
    made = dataset(balance=balance)
    for epoch in range(5):
        counts = np.bincount(LABELS[made.order(epoch)], minlength=3)
        assert (abs(counts - expected) <= 5).all()
    whole = sum(np.bincount(LABELS[made.order(e)], minlength=3) for e in range(100)) / 100
    np.testing.assert_allclose(whole, expected, atol=0.6)


def test_balanced_images_of_a_class_come_evenly() -> None:
    counts = Counter(dataset(balance=1.0).order(0).tolist())
    of_small = [counts[i] for i in range(56, 64)]
    assert min(of_small) >= 2 and max(of_small) <= 3  # 8 images share 21.3 places


def test_a_shard_is_its_images_normalized_channels_last() -> None:
    made = dataset()
    order = made.order(0)
    inputs, targets = made.shard(order, 0, 2, 1, (12, 12))
    chosen = order[2 * 16 + 4 : 2 * 16 + 8]
    np.testing.assert_array_equal(inputs.numpy(), normalize(IMAGES[chosen]))
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert targets.argmax(1).tolist() == LABELS[chosen].tolist()
    assert targets.sum().item() == 4


def test_a_shard_does_not_depend_on_what_was_made_before() -> None:
    made, augmented = dataset(augment=AUGMENT), dataset(augment=AUGMENT)
    order = made.order(3)
    for step in range(3):
        made.shard(order, 3, step, 0, (12, 12))
    later, fresh = (b.shard(order, 3, 3, 1, (12, 12))[0] for b in (made, augmented))
    assert torch.equal(later, fresh)
    assert not torch.equal(later, made.shard(order, 4, 3, 1, (12, 12))[0])


def test_the_prior_is_each_classes_share_and_never_zero() -> None:
    assert dataset().prior().tolist() == [0.5, 0.375, 0.125]
    assert dataset(classes=4).prior().tolist() == [0.5, 0.375, 0.125, 0.5 / 64]


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_the_prior_is_that_of_what_is_drawn(balance: float) -> None:
    made = dataset(balance=balance)
    drawn = sum(np.bincount(LABELS[made.order(e)], minlength=3) for e in range(100)) / 6400
    np.testing.assert_allclose(made.prior().numpy(), drawn, atol=0.005)
    assert (dataset(balance=balance, classes=4).prior() > 0).all()


def test_crops_are_cut_from_finer_images() -> None:
    finer = generator("finer").integers(0, 256, (64, 24, 24, 3), np.uint8)
    cropped = replace(PLAIN, augment=replace(OFF, crop=0.5, flip=0.5))
    made = Dataset({(12, 12): finer}, LABELS, 3, cropped, (1, "t"), finer=2)
    order = made.order(0)
    chosen, rng = made.address_of(order, 0, 1, 1)
    wanted, _ = augment(finer[chosen], np.eye(3, dtype=np.float32)[LABELS[chosen]], rng,
                        cropped.augment, 2)  # fmt: skip
    found = made.shard(order, 0, 1, 1, (12, 12)).inputs
    assert found.shape[2:] == (12, 12)
    np.testing.assert_array_equal(found.numpy(), normalize(wanted))
