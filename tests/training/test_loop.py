"""The loop: what it keeps, when it measures, what a recipe's parts change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_job import CLASSES, LOSS, RECIPE, make_job
from torch import nn

from weighin.data.pack import read_packed
from weighin.grading.f1 import agreement
from weighin.network.build import build
from weighin.training import checkpoint
from weighin.training.job import Epoch, Fitted, Hooks, Job, Teacher
from weighin.training.loop import fit
from weighin.training.run import CHUNK, Run, predict_logits
from weighin.training.team import Team
from weighin.training.weights import load_weights


def same(a: Fitted, b: Fitted) -> bool:
    return all(a.weights[name].tobytes() == b.weights[name].tobytes() for name in a.weights)


def test_history_and_logits_are_those_of_the_weights(packed: Path) -> None:
    job = make_job(packed)
    fitted = fit(Team(), job)
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4]
    module = build(job.spec, len(CLASSES))
    load_weights(module, fitted.weights)
    held = read_packed(packed, "validation", job.spec.input)
    logits = predict_logits(module, held.images, Team())
    np.testing.assert_allclose(logits, fitted.logits, rtol=1e-4, atol=1e-5)
    measured = agreement(held.labels, fitted.logits.argmax(1), held.classes)
    assert fitted.history[-1]["f1"] == round(measured.f1, 6)
    assert fitted.history[-1]["accuracy"] == round(measured.accuracy, 6)


def test_stopping_and_going_on_is_the_same_run(packed: Path) -> None:
    job = make_job(packed)
    whole = fit(Team(), job)
    for stop in (1, 2, 3):
        half = fit(Team(), job, until=stop)
        rest = fit(Team(), job, half.state)
        assert same(rest, whole)
        assert [r["loss"] for r in rest.history] == [r["loss"] for r in whole.history]
    assert not same(half, whole)


def test_hooks_hear_every_epoch_and_its_state(packed: Path) -> None:
    rows: list[Epoch] = []
    states: list[bytes] = []
    fit(Team(), make_job(packed), hooks=Hooks(lambda row, n: rows.append(row), states.append))
    unpacked = [checkpoint.unpack(state) for state in states]
    assert [s.epoch for s in unpacked if s] == [row["epoch"] for row in rows] == [1, 2, 3, 4]


def test_a_long_run_measures_twenty_times_or_so_and_at_its_end(packed: Path) -> None:
    history = fit(Team(), make_job(packed, epochs=43)).history
    assert [row["epoch"] for row in history if "f1" in row] == [*range(2, 43, 2), 43]


def changed(packed: Path, **parts: object) -> Fitted:
    return fit(Team(), make_job(packed, recipe=replace(RECIPE, **parts), epochs=2))


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
    run = Run(Team(), make_job(packed))
    expected = run.flat.weights.clone()
    seen: list[torch.Tensor] = []
    update = run._update_average

    def watch(step: int) -> None:
        seen.append(run.flat.weights.clone())
        update(step)

    run._update_average = watch  # type: ignore[method-assign]
    run.train_epoch()
    for step, weights in enumerate(seen):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(run.average[0], expected)
    own = run.flat.weights.clone()
    run.averaged(lambda: torch.testing.assert_close(run.flat.weights, expected))
    assert torch.equal(run.flat.weights, own)


def test_early_epochs_are_small(packed: Path) -> None:
    assert Run(Team(), make_job(packed)).sizes == [(12, 12)] * 2 + [(16, 16)] * 2
    full = make_job(packed, recipe=replace(RECIPE, low_resolution=0.0))
    assert Run(Team(), full).sizes == [(16, 16)] * 4


def test_all_data_trains_on_the_validation_split_too(packed: Path) -> None:
    assert len(Run(Team(), make_job(packed)).batches.labels) == 40
    assert len(Run(Team(), make_job(packed, all_data=True)).batches.labels) == 61


def test_a_teacher_is_learned_from(packed: Path) -> None:
    job = make_job(packed, epochs=2)
    wide = replace(job.spec, width=2.0)
    taught = fit(Team(), replace(job, spec=wide))
    learning = replace(RECIPE, loss=replace(LOSS, distillation=1.0))
    student: Job = replace(job, recipe=learning, teacher=Teacher(wide, taught.weights))
    with_teacher = fit(Team(), student)
    assert not same(with_teacher, fit(Team(), replace(student, teacher=None)))
    half = fit(Team(), student, until=1)
    assert same(fit(Team(), student, half.state), with_teacher)


def test_a_start_is_where_training_starts(packed: Path) -> None:
    first = fit(Team(), make_job(packed))
    again = fit(Team(), make_job(packed, start=first.weights, epochs=1, address=(9,)), until=0)
    assert same(first, again)


def test_statistics_are_the_mean_over_the_shards(packed: Path) -> None:
    run = Run(Team(), make_job(packed))
    run.module.train()
    order, shards = run.batches.order(0), []
    before = run.flat.statistics.clone()
    for shard in range(4):
        run.flat.statistics.copy_(before)
        run.module(run.batches.shard(order, 0, 0, shard, (16, 16))[0])
        shards.append(run.flat.statistics.clone())
    run.flat.statistics.copy_(before)
    run._add_shards(order, 0, (16, 16))
    torch.testing.assert_close(run.flat.statistics, sum(shards) / 4)


def test_gradients_are_the_mean_over_the_shards(packed: Path) -> None:
    run = Run(Team(), make_job(packed))
    order = run.batches.order(0)
    run.module.train()
    expected = torch.zeros(run.flat.trained)
    for shard in range(4):
        loss = run._shard_loss(order, 0, shard, (16, 16))
        grads = torch.autograd.grad(loss, run.flat.parameters)
        for view, grad in zip(run.flat.views(expected), grads, strict=True):
            view += grad / 4
    run._add_shards(order, 0, (16, 16))
    torch.testing.assert_close(run.flat.grads, expected)


def test_it_learns(packed: Path) -> None:
    lines = replace(RECIPE, low_resolution=0.0, augment=replace(RECIPE.augment, translate=0.0))
    fitted = fit(Team(), make_job(packed, recipe=lines, epochs=60))
    assert fitted.history[-1]["f1"] > 0.8
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_logits_come_in_order_for_any_number_of_images() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 2), nn.Flatten())
    images = np.random.default_rng(0).integers(0, 256, (CHUNK + 5, 2, 2, 3)).astype(np.uint8)
    whole = predict_logits(module, images, Team())
    assert whole.shape == (CHUNK + 5, 2)
    np.testing.assert_array_equal(whole[CHUNK:], predict_logits(module, images[CHUNK:], Team()))
    assert predict_logits(module, images[:0], Team()).shape == (0, 2)
