"""The trainer: what it keeps, when it measures, what a recipe's parts change."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_job import CLASSES, LOSS, RECIPE, make_job
from torch import nn

from weighin.data.pack import read_packed
from weighin.grading.score import confusion_of_indices
from weighin.network.build import build
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import (
    CHUNK,
    Epoch,
    Job,
    Trainer,
    TrainingResult,
    average_decay,
    fit,
    learning_rate,
    predict_logits,
)
from weighin.training.weights import Trained, load_weights, unpack_state


def fitted(job: Job, *arguments: Any, **more: Any) -> TrainingResult:
    return fit(ProcessGroup(), job, *arguments, **more)


def same(a: TrainingResult, b: TrainingResult) -> bool:
    return all(a.weights[name].tobytes() == b.weights[name].tobytes() for name in a.weights)


def test_history_and_logits_are_those_of_the_weights(packed: Path) -> None:
    job = make_job(packed)
    result = fitted(job)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    module = build(job.spec, len(CLASSES))
    load_weights(module, result.weights)
    held = read_packed(packed, "validation", job.spec.input)
    logits = predict_logits(module, held.images)
    np.testing.assert_allclose(logits, result.logits, rtol=1e-4, atol=1e-5)
    measured = confusion_of_indices(held.labels, result.logits.argmax(1), held.classes)
    assert result.history[-1]["f1"] == round(measured.f1, 6)
    assert result.history[-1]["accuracy"] == round(measured.accuracy, 6)


def test_stopping_and_going_on_is_the_same_run(packed: Path) -> None:
    job = make_job(packed)
    whole = fitted(job)
    for stop in (1, 2, 3):
        half = fitted(job, until=stop)
        rest = fitted(job, half.state)
        assert same(rest, whole)
        assert [r["loss"] for r in rest.history] == [r["loss"] for r in whole.history]
    assert not same(half, whole)


def test_on_epoch_hears_every_epoch_and_its_state(packed: Path) -> None:
    rows: list[Epoch] = []
    states: list[bytes] = []

    def keep(trainer: Trainer) -> None:
        rows.append(trainer.history[-1])
        states.append(trainer.packed_state())

    fitted(make_job(packed), on_epoch=keep)
    unpacked = [unpack_state(state) for state in states]
    assert [s.epoch for s in unpacked if s] == [row["epoch"] for row in rows] == [1, 2, 3, 4]


def test_a_long_run_measures_twenty_times_or_so_and_at_its_end(packed: Path) -> None:
    history = fitted(make_job(packed, epochs=43)).history
    assert [row["epoch"] for row in history if "f1" in row] == [*range(2, 43, 2), 43]


def changed(packed: Path, **parts: object) -> TrainingResult:
    return fitted(make_job(packed, recipe=replace(RECIPE, **parts), epochs=2))


@pytest.mark.parametrize(
    "parts",
    [
        {"ema": 0.0}, {"balance": 0.0}, {"optimizer": "adamw"}, {"schedule": "cosine"},
        {"weight_decay": 0.1}, {"low_resolution": 0.0}, {"shards": 2}, {"momentum": 0.0},
        {"loss": replace(LOSS, soft_f1=0.0)}, {"loss": replace(LOSS, logit_adjustment=1.0)},
    ],
)  # fmt: skip
def test_each_part_of_the_recipe_changes_the_weights(
    packed: Path, parts: dict[str, object]
) -> None:
    assert not same(changed(packed, **parts), changed(packed))


def test_the_average_is_that_of_the_weights_after_each_step(packed: Path) -> None:
    trainer = Trainer(ProcessGroup(), make_job(packed))
    expected = trainer.flat.weights.clone()
    seen: list[torch.Tensor] = []
    update = trainer.update

    def watch(rows: torch.Tensor) -> torch.Tensor:
        loss = update(rows)
        seen.append(trainer.flat.weights.clone())
        return loss

    trainer.update = watch  # type: ignore[method-assign]
    trainer.train_epoch()
    for step, weights in enumerate(seen):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(trainer.average[0], expected)
    own = trainer.flat.weights.clone()
    with trainer.averaged():
        torch.testing.assert_close(trainer.flat.weights, expected)
    assert torch.equal(trainer.flat.weights, own)


def test_early_epochs_are_small(packed: Path) -> None:
    assert Trainer(ProcessGroup(), make_job(packed)).sizes == [(12, 12)] * 2 + [(16, 16)] * 2
    full = make_job(packed, recipe=replace(RECIPE, low_resolution=0.0))
    assert Trainer(ProcessGroup(), full).sizes == [(16, 16)] * 4


def test_all_data_trains_on_the_validation_split_too(packed: Path) -> None:
    assert len(Trainer(ProcessGroup(), make_job(packed)).dataset.labels) == 40
    assert len(Trainer(ProcessGroup(), make_job(packed, all_data=True)).dataset.labels) == 61


def test_a_teacher_is_learned_from(packed: Path) -> None:
    job = make_job(packed, epochs=2)
    wide = replace(job.spec, width=2.0)
    taught = fitted(replace(job, spec=wide))
    student: Job = replace(job, teacher=Trained(wide, taught.weights))
    with_teacher = fitted(student)
    assert not same(with_teacher, fitted(replace(student, teacher=None)))
    half = fitted(student, until=1)
    assert same(fitted(student, half.state), with_teacher)


def test_a_start_is_where_training_starts(packed: Path) -> None:
    first = fitted(make_job(packed))
    again = fit(
        ProcessGroup(), make_job(packed, start=first.weights, epochs=1, address=(9,)), until=0
    )
    assert same(first, again)


@pytest.mark.parametrize("steps", [0, 2.5, 1000])  # a step alone, two together, the epoch at once
def test_shards_are_the_same_however_many_are_made_together(
    packed: Path, monkeypatch: pytest.MonkeyPatch, steps: float
) -> None:
    trainer = Trainer(ProcessGroup(), make_job(packed, recipe=replace(RECIPE, shards=2)))
    dataset, size = trainer.dataset, trainer.sizes[0]
    order, made = dataset.order(0), 0
    shard_of_dataset = dataset.shard

    def counted(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return shard_of_dataset(*arguments)

    monkeypatch.setattr(dataset, "shard", counted)
    step_bytes = 2 * RECIPE.shard_size * 3 * math.prod(size) * 4
    monkeypatch.setattr("weighin.training.trainer.MADE", int(steps * step_bytes))
    together = {0: 1, 2.5: 2, 1000: dataset.steps}[steps]
    for step, batches in enumerate(trainer.batches(order)):
        assert made == 2 * min(dataset.steps, (step // together + 1) * together)
        for shard, (inputs, targets) in zip(range(2), batches, strict=True):
            wanted = shard_of_dataset(order, 0, step, shard, size)
            assert torch.equal(inputs, wanted.inputs) and torch.equal(targets, wanted.targets)
    assert step == dataset.steps - 1 > 2


def test_statistics_are_the_mean_over_the_shards(packed: Path) -> None:
    trainer = Trainer(ProcessGroup(), make_job(packed))
    trainer.module.train()
    order, shards = trainer.dataset.order(0), []
    before = trainer.flat.statistics.clone()
    for shard in range(4):
        trainer.flat.statistics.copy_(before)
        trainer.module(trainer.dataset.shard(order, 0, 0, shard, (12, 12))[0])
        shards.append(trainer.flat.statistics.clone())
    trainer.flat.statistics.copy_(before)
    trainer.set_rates(0.1, 0.1)
    trainer.compute_shards(next(trainer.batches(order)))
    trainer.update(trainer.rows)
    torch.testing.assert_close(trainer.flat.statistics, sum(shards) / 4)


def test_gradients_are_the_mean_over_the_shards(packed: Path) -> None:
    trainer = Trainer(ProcessGroup(), make_job(packed))
    order = trainer.dataset.order(0)
    trainer.module.train()
    expected = torch.zeros(trainer.flat.trained)
    for shard in range(4):
        loss = trainer.shard_loss(trainer.batch(order, 0, shard))
        grads = torch.autograd.grad(loss, trainer.flat.leaves)
        for view, grad in zip(trainer.flat.views(expected), grads, strict=True):
            view += grad / 4
    trainer.set_rates(0.1, 0.1)
    trainer.compute_shards(next(trainer.batches(order)))
    trainer.update(trainer.rows)
    torch.testing.assert_close(trainer.flat.grads, expected)


def test_it_learns(packed: Path) -> None:
    lines = replace(RECIPE, low_resolution=0.0, augment=replace(RECIPE.augment, translate=0.0))
    result = fitted(make_job(packed, recipe=lines, epochs=60))
    assert result.history[-1]["f1"] > 0.8
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_logits_come_in_order_for_any_number_of_images() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 2), nn.Flatten())
    images = np.random.default_rng(0).integers(0, 256, (CHUNK + 5, 2, 2, 3)).astype(np.uint8)
    whole = predict_logits(module, images)
    assert whole.shape == (CHUNK + 5, 2)
    np.testing.assert_array_equal(whole[CHUNK:], predict_logits(module, images[CHUNK:]))
    assert predict_logits(module, images[:0]).shape == (0, 2)


RISING = replace(RECIPE, lr=0.5, warmup=0.2)


def rates(steps: int = 10, **changes: object) -> list[float]:
    recipe = replace(RISING, **changes)
    return [learning_rate(recipe, step, steps) for step in range(steps)]


def test_one_cycle_rises_to_the_peak_and_falls_along_a_line() -> None:
    rise = [0.25, 0.5]
    fall = [0.5 * (1 - k / 8 + 1e-3) for k in range(1, 9)]
    assert rates(schedule="one-cycle") == pytest.approx(rise + fall)


def test_cosine_falls_along_half_a_cosine() -> None:
    fall = [0.5 * (0.5 + 0.5 * math.cos(math.pi * k / 10) + 1e-3) for k in range(1, 11)]
    assert rates(schedule="cosine", warmup=0) == pytest.approx(fall)


def test_constant_stays() -> None:
    assert rates(schedule="constant") == [0.25] + [0.5] * 9


def test_a_rate_has_ten_digits_that_every_c_library_agrees_on() -> None:
    for rate in rates(37, schedule="cosine"):
        assert rate == float(f"{rate:.9e}")


def test_the_average_begins_fast_and_reaches_the_recipes_decay() -> None:
    recipe = replace(RISING, ema=0.99)
    assert [average_decay(recipe, step) for step in (0, 10, 10_000)] == [0.1, 0.55, 0.99]
