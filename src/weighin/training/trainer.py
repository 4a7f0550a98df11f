"""The training loop: search, tune, train, pruning and finetune all call `fit`.

A batch is always S shards. A shard is one forward and backward of B images on one thread; the
shards' gradients and batch-norm statistics are added in shard order, so 1, 2 or 4 processes end in
the same bytes. Everything random has an address, so a run that was killed resumes to the same
bytes. `python -m bench.training` measures its speed against a plain PyTorch loop's.

Shapes: S shards of B images a batch, N validation images, K classes, T trained weights, Q
batch-norm statistics (running means and variances). Targets are soft, because mixup,
CutMix and label smoothing make them so.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weighin.data.pack import joined, packed_finer, packed_sizes, read_packed
from weighin.grading.score import confusion_of_indices
from weighin.images import Size, normalize
from weighin.network.build import Factorization, build, initialize
from weighin.network.spec import NetworkSpec
from weighin.params import Loss, Recipe
from weighin.training.augment import moves
from weighin.training.dataset import Address, Batch, Dataset
from weighin.training.kernels import keep_memory, record_steps, use_fast_kernels
from weighin.training.process_group import ProcessGroup
from weighin.training.weights import (
    FlatModule,
    State,
    Trained,
    Weights,
    load_weights,
    module_weights,
    pack_state,
    unpack_state,
)

if TYPE_CHECKING:
    from weighin.network.quantized import Range

Epoch = dict[str, float]
Logits = npt.NDArray[np.float32]
CPU = torch.device("cpu")
CHUNK = 64  # images of one validation forward: another number is another rounding
MADE = 3 * 2**23  # bytes of inputs that are made before the network runs; a step's at least


@dataclass(frozen=True)
class Job:
    """What to train, on what, how long, and from which random address."""

    spec: NetworkSpec
    recipe: Recipe
    epochs: int
    packed: Path
    address: Address
    split: int = field(default=0, kw_only=True)  # of the packed ones
    ranks: Mapping[str, Factorization] = field(default_factory=dict)
    start: Weights | None = None
    freeze: str = "nothing"
    teacher: Trained | None = None
    distillation: float = 1.0  # weight of the teacher's labels
    all_data: bool = False
    validations: int = 20  # during the run; more would cost more than they tell
    ranges: Mapping[str, "Range"] = field(default_factory=dict)  # of activations that have 8 bits


@dataclass(frozen=True)
class TrainingResult:
    """A trained network: weights by name, history, and logits (N, K) on the validation split."""

    weights: dict[str, npt.NDArray[np.float32]]
    history: list[Epoch]
    logits: Logits
    state: bytes


def fit(
    group: ProcessGroup,
    job: Job,
    state: bytes = b"",
    until: int | None = None,
    on_epoch: Callable[["Trainer"], None] = lambda trainer: None,
) -> TrainingResult:
    """Train `job` from its packed `state` (or from the start) until an epoch (or the end).

    `on_epoch` is called after each epoch, in every process of the group.

    Raises:
        WorkerError: another process of the group ended.
    """
    trainer = make_trainer(group, job)
    trainer.restore(group.broadcast(state))
    last = job.epochs if until is None else until
    every = max(1, job.epochs // max(1, job.validations))
    while trainer.epoch < last:
        row = trainer.train_epoch()
        if job.validations and (trainer.epoch in (last, job.epochs) or trainer.epoch % every == 0):
            row |= trainer.evaluate()
        trainer.history.append(row)
        on_epoch(trainer)
    with trainer.averaged():
        weights = module_weights(trainer.module)
    return TrainingResult(weights, trainer.history, trainer.logits(), trainer.packed_state())


def make_trainer(group: ProcessGroup, job: Job) -> "Trainer":
    """Return the trainer of the device that a job's recipe names."""
    if job.recipe.device == "cpu":
        return Trainer(group, job)
    from weighin.training.device_trainer import DeviceTrainer  # it stands on this file

    return DeviceTrainer(group, job)


class Trainer:
    """The live state of one job, in one process of a group."""

    def __init__(self, group: ProcessGroup, job: Job, device: torch.device = CPU) -> None:
        torch.set_num_threads(1)  # use_deterministic_algorithms adds 2.7 s of imports, no equality
        keep_memory()
        self.group, self.job = group, job
        self.sizes = _sizes(job)
        self.dataset = _dataset(job, self.sizes)
        self.validation = read_packed(job.packed, "validation", job.spec.input, job.split)
        self.module = build(job.spec, self.dataset.classes, job.ranks)
        if job.start is None:
            initialize(self.module, *job.address)
        else:
            load_weights(self.module, job.start)
        self.flat = FlatModule(self.module.to(device), job.freeze)
        if job.ranges:  # by autograd: no kernel rounds
            from weighin.network.quantized import fake_quantize

            fake_quantize(self.module, job.ranges)
        else:
            self.use_kernels(self.module)
            self.record()
        self.optimizer = make_optimizer(self.flat, job.recipe)
        prior = self.dataset.prior().to(device)
        self.criterion = Criterion(job.recipe.loss, prior, job.distillation)
        self.teacher: nn.Module | None = None
        if job.teacher is not None:
            self.teacher = job.teacher.module(self.dataset.classes).to(device)
            self.use_kernels(self.teacher.to(memory_format=torch.channels_last))
        self.average = [vector.clone() for vector in self.flat.vectors]
        width = self.flat.trained + len(self.flat.statistics) + 1
        self.rows = self.flat.weights.new_zeros(len(self.local_shards), width)
        self.row_grads = [self.flat.views(row[: self.flat.trained]) for row in self.rows]
        self.epoch, self.history = 0, list[Epoch]()
        self._logits: tuple[int, Logits] | None = None  # of the last validation, and its epoch

    def use_kernels(self, module: nn.Module) -> None:
        """Let a network's layers compute as the device does best."""
        use_fast_kernels(module)

    def record(self) -> None:
        """Let the network's step be a recording."""
        record_steps(self.flat)

    @property
    def local_shards(self) -> range:
        """Which shards of a batch this process computes."""
        return self.group.local_shards(self.job.recipe.shards)

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch trains on."""
        return self.dataset.steps * self.dataset.batch

    def train_epoch(self) -> Epoch:
        """Train one epoch; return its mean loss and last learning rate."""
        self.module.train()
        order, steps = self.dataset.order(self.epoch), self.dataset.steps
        total, rate, recipe = self.rows.new_zeros(()), self.job.recipe.lr, self.job.recipe
        for step, batches in enumerate(self.batches(order)):
            at = self.epoch * steps + step
            rate = learning_rate(recipe, at, self.job.epochs * steps)
            self.set_rates(rate, 1 - average_decay(recipe, at))
            self.compute_shards(batches)
            total += self.update(self.group.all_gather(self.rows, recipe.shards))
        self.epoch += 1
        return {"epoch": self.epoch, "loss": round(float(total) / steps, 6), "lr": rate}

    def set_rates(self, rate: float, share: float) -> None:
        """Set the learning rate, and the share of a step's weights in their average."""
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.share: float | Tensor = share

    def batches(self, order: npt.NDArray[np.int64]) -> Iterator[list[Batch]]:
        """Yield this process's shards of each step of an epoch.

        Those of some steps are made together: between two passes of the network the code that makes
        images is out of the processor's caches, and a shard takes up to five times as long.
        """
        steps, size = self.dataset.steps, self.sizes[self.epoch]
        bytes_of_step = (
            len(self.local_shards) * self.job.recipe.shard_size * 3 * math.prod(size) * 4
        )
        together = max(1, MADE // max(1, bytes_of_step))
        for first in range(0, steps, together):
            yield from [
                [self.batch(order, step, shard) for shard in self.local_shards]
                for step in range(first, min(first + together, steps))
            ]

    def compute_shards(self, batches: Sequence[Batch]) -> None:
        """Set this process's rows (T + Q + 1) to its shards' gradients, statistics and losses."""
        flat = self.flat
        before = flat.statistics.clone()  # (Q,): every shard starts from these
        for place, batch in enumerate(batches):
            flat.statistics.copy_(before)
            loss = self.shard_loss(batch)
            grads = torch.autograd.grad(loss, flat.leaves)
            torch._foreach_copy_(self.row_grads[place], grads)
            row = self.rows[place]
            row[flat.trained : -1] = flat.statistics
            row[-1] = loss.detach()

    def update(self, rows: Tensor) -> Tensor:
        """Take a step along the mean of all shards' rows (S, T + Q + 1); return the mean loss."""
        flat, mean = self.flat, rows[0].clone()
        for row in rows[1:]:  # in order: a sum of floats depends on it
            mean += row
        mean /= len(rows)
        flat.grads.copy_(mean[: flat.trained])
        flat.statistics.copy_(mean[flat.trained : -1])
        self.optimizer.step()
        if self.job.recipe.ema:
            for average, vector in zip(self.average, flat.vectors, strict=True):
                average.lerp_(vector, self.share)
        return mean[-1]

    def shard_loss(self, batch: Batch) -> Tensor:
        """Return the loss of one shard, a scalar."""
        inputs, targets = batch  # (B, 3, H, W), (B, K)
        guide = None
        if self.teacher is not None:
            with torch.no_grad():
                guide = self.teacher(inputs)  # (B, K)
        return self.criterion(self.module(inputs), targets, guide)

    def batch(self, order: npt.NDArray[np.int64], step: int, shard: int) -> Batch:
        """Return the images of a shard."""
        return self.dataset.shard(order, self.epoch, step, shard, self.sizes[self.epoch])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights and statistics into the module for the time of the block."""
        own = [vector.clone() for vector in self.flat.vectors]
        if self.job.recipe.ema:
            self.flat.copy_(self.average)
        try:
            yield
        finally:
            self.flat.copy_(own)

    def logits(self) -> Logits:
        """Return the validation logits (N, K) of the averaged weights."""
        if self._logits is None or self._logits[0] != self.epoch:
            with self.averaged():
                found = predict_logits(self.module, self.validation.images, self.group)
            self._logits = self.epoch, found
        return self._logits[1]

    def evaluate(self) -> Epoch:
        """Return macro F1 and accuracy on the validation split."""
        if not len(self.validation.labels):
            return {}
        predicted = self.logits().argmax(1)
        found = confusion_of_indices(self.validation.labels, predicted, self.validation.classes)
        return {"f1": round(found.f1, 6), "accuracy": round(found.accuracy, 6)}

    def is_finite(self) -> bool:
        """Whether the last epoch's loss, and all that training changes, are numbers still."""
        loss = self.history[-1]["loss"]
        return math.isfinite(loss) and all(
            bool(x.isfinite().all()) for x in self.tensors().values()
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that training changes, by name: what a checkpoint holds."""
        names = ("weights", "statistics", "average", "average_statistics")
        found = dict(zip(names, [*self.flat.vectors, *self.average], strict=True))
        for index, group in enumerate(self.optimizer.param_groups):
            for name, value in self.optimizer.state[group["params"][0]].items():
                found[f"optimizer.{index}.{name}"] = value
        return {name: tensor.detach() for name, tensor in found.items()}

    def packed_state(self) -> bytes:
        """Return everything that the run needs to go on."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.tensors().items()}
        return pack_state(State(arrays, self.epoch, self.history))

    def restore(self, data: bytes) -> None:
        """Go back to a packed state; empty bytes are the start."""
        state = unpack_state(data)
        if state is not None:
            for name, tensor in self.tensors().items():
                tensor.copy_(torch.from_numpy(state.arrays[name]))
            self.epoch, self.history = state.epoch, list(state.history)


def make_optimizer(flat: FlatModule, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with Nesterov's momentum, or AdamW, over two vectors: decayed weights, and others.

    Fused kernels give the same bytes on every processor; `foreach` AdamW does not (its square root
    is another instruction there). The state is made here, for a checkpoint to be copied into.
    """
    bounds = [(0, flat.decayed, recipe.weight_decay), (flat.decayed, flat.trained, 0.0)]
    groups, parts = [], []
    for start, end, decay in bounds:
        if end > start:
            part = nn.Parameter(flat.weights[start:end])
            part.grad = flat.grads[start:end]
            parts.append(part)
            groups.append({"params": [part], "weight_decay": decay})
    made: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        made = torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=nesterov, fused=True)
        names = ["momentum_buffer"] if nesterov else []
    else:
        betas, cuda = (recipe.momentum, 0.999), flat.weights.is_cuda
        made = torch.optim.AdamW(groups, recipe.lr, betas, fused=True, capturable=cuda)
        names = ["exp_avg", "exp_avg_sq"]
    for part in parts:
        made.state[part] = {name: torch.zeros_like(part) for name in names}
        if recipe.optimizer == "adamw":
            made.state[part]["step"] = flat.weights.new_zeros(())
    return made


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate at `step` of `steps`: a linear warm-up to the peak, then the schedule.

    one-cycle falls to zero along a line (Smith and Topin, "Super-convergence", 2018), cosine along
    half a cosine (Loshchilov and Hutter, "SGDR", 2017), constant stays.
    """
    warm = recipe.warmup * steps
    done = (step + 1 - warm) / max(steps - warm, 1)
    rate = recipe.lr
    if step + 1 <= warm:
        rate = recipe.lr * (step + 1) / warm
    elif recipe.schedule == "one-cycle":
        rate = recipe.lr * (1 - done + 1e-3)
    elif recipe.schedule == "cosine":
        rate = recipe.lr * (0.5 + 0.5 * math.cos(math.pi * done) + 1e-3)
    return float(f"{rate:.9e}")  # two C libraries' cosines may differ in the last bit


def average_decay(recipe: Recipe, step: int) -> float:
    """Return the decay of the weight average at `step`; it begins fast, so early epochs count."""
    return min(recipe.ema, (1 + step) / (10 + step))


def predict_logits(
    module: nn.Module, images: npt.NDArray[np.uint8], group: ProcessGroup | None = None
) -> Logits:
    """Return logits (N, K) of uint8 images (N, H, W, 3), in fixed chunks shared by the group."""
    group = group or ProcessGroup()
    module.eval()
    device = next(module.parameters()).device
    chunks = -(-len(images) // CHUNK)
    local = group.local_shards(chunks)
    with torch.inference_mode():
        classes = module(torch.zeros(1, 3, *images.shape[1:3], device=device)).shape[1]
        rows = torch.zeros(len(local), CHUNK, classes)
        for row, chunk in zip(rows, local, strict=True):
            part = np.asarray(images[chunk * CHUNK : (chunk + 1) * CHUNK])
            row[: len(part)] = module(torch.from_numpy(normalize(part)).to(device))
    gathered = group.all_gather(rows.flatten(1), chunks)  # (chunks, CHUNK * K)
    return gathered.view(-1, classes)[: len(images)].clone().numpy()


def _sizes(job: Job) -> list[Size]:
    """Return the input size of every epoch: small ones first where the recipe says so."""
    full = job.spec.input
    smaller = [size for size in packed_sizes(job.packed) if math.prod(size) < math.prod(full)]
    low = max(smaller, key=math.prod, default=full)
    early = int(job.recipe.low_resolution * job.epochs)
    return [low] * early + [full] * (job.epochs - early)


def _dataset(job: Job, sizes: list[Size]) -> Dataset:
    sides = ["train", "validation"] if job.all_data else ["train"]
    finer = packed_finer(job.packed) if moves(job.recipe.augment) else 1
    images = {}
    for size in dict.fromkeys(sizes or [job.spec.input]):
        packs = [read_packed(job.packed, side, size, job.split, finer) for side in sides]
        images[size] = joined([pack.images for pack in packs])
    labels = np.concatenate([pack.labels for pack in packs])
    return Dataset(images, labels, len(packs[0].classes), job.recipe, job.address, finer)


def smooth(targets: Tensor, amount: float) -> Tensor:
    """Return targets with `amount` spread over all classes (Szegedy et al., 2016)."""
    return targets * (1 - amount) + amount / targets.shape[1]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of soft targets."""
    return -(targets * F.log_softmax(logits, 1)).sum(1).mean()


def focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Return cross-entropy weighted by (1 - p)^gamma (Lin et al., 2017)."""
    log_p = F.log_softmax(logits, 1)
    return -(targets * (1 - log_p.exp()).clamp(min=1e-6) ** gamma * log_p).sum(1).mean()


def soft_f1(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - macro F1 with probabilities in place of counts, over the shard's classes."""
    p = F.softmax(logits, 1)
    hits, support = (p * targets).sum(0), targets.sum(0)
    f1 = 2 * hits / (p.sum(0) + support).clamp(min=1e-6)
    present = (support > 0).to(f1.dtype)
    return 1 - (f1 * present).sum() / present.sum()


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) at temperature T (Hinton et al., 2015)."""
    log_q = F.log_softmax(logits / temperature, 1)
    p = F.softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")


class Criterion:
    """The weighted sum that a recipe names."""

    def __init__(self, weights: Loss, prior: Tensor, distillation: float = 1.0) -> None:
        """Take the recipe's weights, the training prior (K,), and the weight of a teacher's labels.

        The prior shifts the logits.

        Logit adjustment: Menon et al., "Long-tail learning via logit adjustment", 2021.
        """
        self.weights, self.distillation = weights, distillation
        self.shift = weights.logit_adjustment * prior.log() if weights.logit_adjustment else None

    def __call__(self, logits: Tensor, targets: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Return the loss of a shard; `teacher` holds another network's logits (B, K)."""
        w = self.weights
        total = logits.new_zeros(())
        if teacher is not None:
            total = total + self.distillation * distillation(logits, teacher, w.temperature)
        if self.shift is not None:
            logits = logits + self.shift
        if w.cross_entropy:
            total = total + w.cross_entropy * cross_entropy(logits, smooth(targets, w.smoothing))
        if w.soft_f1:
            total = total + w.soft_f1 * soft_f1(logits, targets)
        if w.focal:
            total = total + w.focal * focal(logits, targets, w.focal_gamma)
        return total
