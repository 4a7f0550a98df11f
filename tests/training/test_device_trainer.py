"""The trainer's code for a GPU, rehearsed on the processor: its numbers, and its bytes."""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_job import RECIPE, make_job
from torch import nn

from conftest import Run, digest
from weighin.determinism import generator
from weighin.training.dataset import Dataset
from weighin.training.device import REHEARSAL
from weighin.training.device_trainer import DeviceBatches, DeviceTrainer
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Trainer, TrainingResult, fit, make_trainer
from weighin.training.weights import Trained

DEVICE = replace(RECIPE, device=REHEARSAL)
GEOMETRY = replace(RECIPE.augment, crop=0.6, rotate=10.0, blur=0.3, mixup=0.2, cutmix=0.5)


def fitted(packed: Path, **changes: Any) -> TrainingResult:
    job = make_job(packed, recipe=replace(DEVICE, **changes.pop("parts", {})))
    return fit(ProcessGroup(), replace(job, **changes))


def same(a: TrainingResult, b: TrainingResult) -> bool:
    return all(a.weights[name].tobytes() == b.weights[name].tobytes() for name in a.weights)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"optimizer": "adamw", "lr": 0.001, "ema": 0.0},
        {"augment": replace(RECIPE.augment, flip_vertical=0.5, noise=0.5, cutout=0.3)},
        {"augment": replace(RECIPE.augment, randaugment=1, magnitude=9)},  # drawn on the processor
    ],
)
def test_a_step_is_the_processors_step(packed: Path, parts: dict[str, Any]) -> None:
    recipe = replace(RECIPE, **parts)
    job = make_job(packed, recipe=recipe)
    own = make_job(packed, recipe=replace(recipe, device=REHEARSAL))
    trainers = make_trainer(ProcessGroup(), job), make_trainer(ProcessGroup(), own)
    assert [type(one) for one in trainers] == [Trainer, DeviceTrainer]
    rows = [one.train_epoch() for one in trainers]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)
    for name, tensor in trainers[0].tensors().items():
        torch.testing.assert_close(trainers[1].tensors()[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_teacher_and_frozen_layers_are_the_processors(packed: Path) -> None:
    taught = fitted(packed, epochs=1)
    spec = make_job(packed).spec
    changes = {"teacher": Trained(spec, taught.weights), "freeze": "all-but-convolutions"}
    job = make_job(packed, **changes)
    own = replace(job, recipe=replace(RECIPE, device=REHEARSAL))
    first, second = (make_trainer(ProcessGroup(), one) for one in (job, own))
    losses = first.train_epoch()["loss"], second.train_epoch()["loss"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(second.flat.weights, first.flat.weights, rtol=1e-3, atol=1e-4)


def test_crops_of_finer_images_are_the_processors() -> None:
    small = generator("finer").integers(0, 256, (32, 6, 6, 3), np.uint8)
    finer = np.stack([np.asarray(Image.fromarray(one).resize((24, 24))) for one in small])
    recipe = replace(RECIPE, augment=replace(RECIPE.augment, crop=0.5, rotate=15.0))
    dataset = Dataset({(12, 12): finer}, np.arange(32) % 3, 3, recipe, (1, "t"), finer=2)
    batches, order = DeviceBatches(dataset, torch.device("cpu")), dataset.order(0)
    batches.load(order, 0, 1, range(2), (12, 12))
    for shard in range(2):
        found, wanted = batches.batch(shard), dataset.shard(order, 0, 1, shard, (12, 12))
        assert found.inputs.shape == wanted.inputs.shape == (recipe.shard_size, 3, 12, 12)
        levels = (found.inputs - wanted.inputs).abs() * 255 / 2
        assert (levels > 2.01).float().mean() < 0.01 and levels.mean() < 0.5
        torch.testing.assert_close(found.targets, wanted.targets)


def test_what_is_loaded_stays_where_it_is(packed: Path) -> None:
    """A graph reads the memory that it was recorded with."""
    trainer = make_trainer(
        ProcessGroup(), make_job(packed, recipe=replace(DEVICE, augment=GEOMETRY))
    )
    assert isinstance(trainer, DeviceTrainer)
    trainer.train_epoch()
    places = {name: tensor.data_ptr() for name, tensor in trainer.on_device.loaded.items()}
    assert {"chosen", "map", "shift", "color", "blur", "mixup", "cutmix"} <= places.keys()
    values = {name: tensor.clone() for name, tensor in trainer.on_device.loaded.items()}
    trainer.train_epoch()
    loaded = trainer.on_device.loaded
    assert {name: tensor.data_ptr() for name, tensor in loaded.items()} == places
    assert not torch.equal(loaded["chosen"], values["chosen"])
    assert sorted(trainer.graphs.bodies) == ["shards (12, 12)", "update"]
    trainer.train_epoch()  # the larger images
    assert sorted(trainer.graphs.bodies) == ["shards (12, 12)", "shards (16, 16)", "update"]


def test_stopping_and_going_on_is_the_same_run(packed: Path) -> None:
    whole = fitted(packed, parts={"augment": GEOMETRY})
    job = make_job(packed, recipe=replace(DEVICE, augment=GEOMETRY))
    for stop in (1, 3):
        half = fit(ProcessGroup(), job, until=stop)
        assert same(fit(ProcessGroup(), job, half.state), whole)
    assert not same(half, whole)


def test_bf16_is_another_precision_and_repeats(packed: Path) -> None:
    results = [fitted(packed, epochs=2, parts={"precision": "bf16"}) for _ in range(2)]
    assert same(*results)
    assert not same(results[0], fitted(packed, epochs=2))
    assert all(np.isfinite(values).all() for values in results[0].weights.values())


@pytest.mark.cluster
@pytest.mark.serial
def test_the_bytes_are_those_of_any_number_of_processes(run: Run) -> None:
    given = {"device": REHEARSAL}
    alone = digest(run(**given, scratch="a"))
    assert digest(run(**given, scratch="b")) == alone
    assert digest(run(**given, scratch="c", workers=2)) == alone
    assert digest(run(**given, scratch="d", workers=3)) == alone
    assert digest(run(**given, scratch="e", seed=2)) != alone


@pytest.mark.kills
@pytest.mark.serial
def test_a_killed_run_goes_on_to_the_same_bytes(
    run: Run, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    given = {"device": REHEARSAL, "epochs": 30}
    whole = digest(run(**given, scratch="whole"))
    state = tmp_path / "scratch/train.state"
    with subprocess.Popen(command(**given), stderr=subprocess.DEVNULL) as process:
        while not state.exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL and state.exists()
    assert digest(run(**given, workers=2)) == whole


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_max_pooling_without_atomics_is_max_pooling(kernel: int, stride: int, padding: int) -> None:
    theirs = nn.MaxPool2d(kernel, stride, padding)
    ours = nn.Sequential(nn.MaxPool2d(kernel, stride, padding))
    DeviceTrainer.use_kernels(object.__new__(DeviceTrainer), ours)
    assert type(ours[0]) is not nn.MaxPool2d
    pixels = torch.from_numpy(np.random.default_rng(0).permutation(2 * 3 * 9 * 8)).float()
    a, b = (pixels.view(2, 3, 9, 8).clone().requires_grad_() for _ in range(2))
    wanted, found = theirs(a), ours(b)
    torch.testing.assert_close(found, wanted)
    weight = torch.arange(wanted.numel()).view(wanted.shape).float()
    (wanted * weight).sum().backward()
    (found * weight).sum().backward()
    torch.testing.assert_close(b.grad, a.grad)
