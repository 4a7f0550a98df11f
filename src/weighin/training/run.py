"""The live state of one training run: a step over shards, an epoch, a validation."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from weighin.data.pack import packed_sizes, read_packed
from weighin.grading.f1 import agreement
from weighin.images import Size, normalize
from weighin.network.build import build, initialize
from weighin.training import checkpoint
from weighin.training.batches import Batches, Examples
from weighin.training.flat import FlatModule
from weighin.training.job import Epoch, Job, Logits, Teacher
from weighin.training.losses import Criterion
from weighin.training.optimizer import Optimizer
from weighin.training.quick import quicken
from weighin.training.schedule import average_decay, learning_rate
from weighin.training.team import Team
from weighin.training.weights import load_weights, module_weights

R = TypeVar("R")
CHUNK = 64  # images of one validation forward: another number is another rounding


class _Row:
    """What a shard gives, as views into one vector: gradients, statistics, loss."""

    def __init__(self, flat: FlatModule, row: Tensor) -> None:
        self.grads = flat.views(row[: flat.trained])
        self.statistics, self.loss = row[flat.trained : -1], row[-1]


class Run:
    """The live state of one fit."""

    def __init__(self, team: Team, job: Job) -> None:
        self.team, self.job = team, job
        self.sizes = _sizes(job)
        by_size = {size: _examples(job, size) for size in dict.fromkeys(self.sizes)}
        self.batches = Batches(by_size, job.recipe, job.address)
        self.validation = read_packed(job.packed, "validation", job.spec.input)
        self.module = build(job.spec, self.batches.classes, job.ranks)
        if job.start is None:
            initialize(self.module, *job.address)
        else:
            load_weights(self.module, job.start)
        self.flat = FlatModule(self.module, job.freeze)
        quicken(self.module)
        width = self.flat.trained + len(self.flat.statistics) + 1
        self._table = torch.zeros(len(team.mine(job.recipe.shards)), width)
        self.rows = [_Row(self.flat, row) for row in self._table]
        self.optimizer = Optimizer(self.flat, job.recipe)
        self.average = [self.flat.weights.clone(), self.flat.statistics.clone()]
        prior = next(iter(by_size.values())).prior()
        self.criterion = Criterion(job.recipe.loss, prior)
        self.teacher = _teacher(job.teacher, self.batches.classes)
        self.epoch = 0
        self.history: list[Epoch] = []
        self._seen: tuple[int, Logits] | None = None  # the last validation's epoch and logits

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch trains on."""
        return self.batches.per_epoch * self.batches.size

    def train_epoch(self) -> Epoch:
        """Train one epoch; return its mean loss and last learning rate."""
        batches, recipe = self.batches, self.job.recipe
        order, size = batches.order(self.epoch), self.sizes[self.epoch]
        steps = self.job.epochs * batches.per_epoch
        self.module.train()
        total = torch.zeros(())
        rate = recipe.lr
        for step in range(batches.per_epoch):
            total += self._add_shards(order, step, size)
            at = self.epoch * batches.per_epoch + step
            rate = learning_rate(recipe, at, steps)
            self.optimizer.step(rate)
            self._update_average(at)
        self.epoch += 1
        loss = float(total) / batches.per_epoch
        return {"epoch": self.epoch, "loss": round(loss, 6), "lr": rate}

    def _add_shards(self, order: npt.NDArray[np.int64], step: int, size: Size) -> Tensor:
        """Set gradients and statistics to the mean over the batch's shards; return the loss."""
        flat, shards = self.flat, self.job.recipe.shards
        before = flat.statistics.clone()
        for row, shard in zip(self.rows, self.team.mine(shards), strict=True):
            flat.statistics.copy_(before)
            loss = self._shard_loss(order, step, shard, size)
            grads = torch.autograd.grad(loss, flat.parameters)
            for view, grad in zip(row.grads, grads, strict=True):
                view.copy_(grad)
            row.statistics.copy_(flat.statistics)
            row.loss.copy_(loss.detach())
        mean = self._mean(self.team.gather(self._table, shards))
        flat.grads.copy_(mean[: flat.trained])
        flat.statistics.copy_(mean[flat.trained : -1])
        return mean[-1]

    def _mean(self, table: Tensor) -> Tensor:
        """Return the mean of the shards' rows, added in order."""
        total = table[0].clone()
        for row in table[1:]:
            total += row
        return total.div_(len(table))

    def _shard_loss(
        self, order: npt.NDArray[np.int64], step: int, shard: int, size: Size
    ) -> Tensor:
        inputs, targets = self.batches.shard(order, self.epoch, step, shard, size)
        guide = None
        if self.teacher is not None:
            with torch.no_grad():
                guide = self.teacher(inputs)
        return self.criterion(self.module(inputs), targets, guide)

    def _update_average(self, step: int) -> None:
        if not self.job.recipe.ema:
            return
        share = 1 - average_decay(self.job.recipe, step)
        self.average[0].lerp_(self.flat.weights, share)
        self.average[1].lerp_(self.flat.statistics, share)

    def averaged(self, function: Callable[[], R]) -> R:
        """Return what `function` gives while the averaged weights are in place."""
        if not self.job.recipe.ema:
            return function()
        own = [self.flat.weights.clone(), self.flat.statistics.clone()]
        self._put(self.average)
        try:
            return function()
        finally:
            self._put(own)

    def _put(self, numbers: list[Tensor]) -> None:
        self.flat.weights.copy_(numbers[0])
        self.flat.statistics.copy_(numbers[1])

    def averaged_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the averaged weights by name."""
        return self.averaged(lambda: module_weights(self.module))

    def logits(self) -> Logits:
        """Return the validation logits of the averaged weights."""
        if self._seen is None or self._seen[0] != self.epoch:
            images = self.validation.images
            found = self.averaged(lambda: predict_logits(self.module, images, self.team))
            self._seen = self.epoch, found
        return self._seen[1]

    def evaluate(self) -> Epoch:
        """Return macro F1 and accuracy on the validation split."""
        labels = self.validation.labels
        if not len(labels):
            return {}
        measured = agreement(labels, self.logits().argmax(1), self.validation.classes)
        return {"f1": round(measured.f1, 6), "accuracy": round(measured.accuracy, 6)}

    def packed_state(self) -> bytes:
        """Return everything that the run needs to go on."""
        tensors = {"weights": self.flat.weights, "statistics": self.flat.statistics}
        tensors |= {"average": self.average[0], "average_statistics": self.average[1]}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.state().items()}
        arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
        return checkpoint.pack(checkpoint.State(arrays, self.epoch, self.history))

    def restore(self, data: bytes) -> None:
        """Go back to a packed state; empty bytes are the start."""
        state = checkpoint.unpack(data) if data else None
        if state is None:
            return
        live = {"weights": self.flat.weights, "statistics": self.flat.statistics}
        live |= {"average": self.average[0], "average_statistics": self.average[1]}
        live |= {f"optimizer.{k}": v for k, v in self.optimizer.state().items()}
        for name, tensor in live.items():
            tensor.detach().copy_(torch.from_numpy(state.arrays[name]))
        self.epoch, self.history = state.epoch, list(state.history)


def predict_logits(module: nn.Module, images: npt.NDArray[np.uint8], team: Team) -> Logits:
    """Return logits (N, K) of uint8 images (N, H, W, 3), in fixed chunks shared by the team."""
    module.eval()
    chunks = -(-len(images) // CHUNK)
    mine = team.mine(chunks)
    with torch.inference_mode():
        classes = module(torch.zeros(1, 3, *images.shape[1:3])).shape[1]
        rows = torch.zeros(len(mine), CHUNK, classes)
        for row, chunk in zip(rows, mine, strict=True):
            part = np.asarray(images[chunk * CHUNK : (chunk + 1) * CHUNK])
            row[: len(part)] = module(torch.from_numpy(normalize(part)))
    gathered = team.gather(rows.flatten(1), chunks)
    return gathered.view(-1, classes)[: len(images)].clone().numpy()


def _sizes(job: Job) -> list[Size]:
    """Return the input size of every epoch: small ones first where the recipe says so."""
    full = job.spec.input
    smaller = [s for s in packed_sizes(job.packed) if s[0] * s[1] < full[0] * full[1]]
    low = max(smaller, key=lambda s: s[0] * s[1]) if smaller else full
    early = int(job.recipe.low_resolution * job.epochs)
    return [low] * early + [full] * (job.epochs - early)


def _examples(job: Job, size: Size) -> Examples:
    train = read_packed(job.packed, "train", size)
    if not job.all_data:
        return Examples(train.images, train.labels, len(train.classes))
    held = read_packed(job.packed, "validation", size)
    images = np.concatenate([train.images, held.images])
    return Examples(images, np.concatenate([train.labels, held.labels]), len(train.classes))


def _teacher(teacher: Teacher | None, classes: int) -> nn.Module | None:
    if teacher is None:
        return None
    module = build(teacher.spec, classes, teacher.ranks)
    load_weights(module, teacher.weights)
    quicken(module)
    return module.to(memory_format=torch.channels_last).eval()
