"""The trainer on a GPU: the same step, its images and its loop living on the device.

The packed images lie there as uint8, and are changed there by what the processor draws
(device_augment.py). A step is two CUDA graphs, each recorded once and replayed: the shards' forward
and backward, and the update; between them the processes' rows are gathered. A graph computes on the
memory it was recorded with, so whatever differs from step to step is copied into tensors that stay.

The same code runs on the processor as a rehearsal (device.REHEARSAL), without graphs: the tests of
its bytes are made so. Not yet run on a GPU.
"""

import os
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weighin.images import Size
from weighin.training.dataset import Batch, Dataset
from weighin.training.device import pin_device
from weighin.training.device_augment import apply, draw, on_processor
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Job, Trainer

WARM_UP = 3  # runs before a graph is recorded: libraries choose their kernels in them
Body = Callable[[], Tensor | None]


class DeviceTrainer(Trainer):
    """The live state of one job on a device, in one process of a group."""

    def __init__(self, group: ProcessGroup, job: Job) -> None:
        device = _device(job.recipe.device, group)
        if device.type == "cuda":
            pin_device(job.recipe)
        super().__init__(group, job, device)
        self.batches = DeviceBatches(self.dataset, device)
        self.rate, self.average_share = (self.rows.new_zeros(()) for _ in range(2))
        self.gathered = self.rows.new_zeros(job.recipe.shards, self.rows.shape[1])
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.rate
        self.share = self.average_share
        # AdamW would warn of the warm-up, which no graph records
        self.optimizer._warned_capturable_if_run_uncaptured = True
        self.graphs = Graphs(device)
        self.autocast = {
            "device_type": device.type,
            "dtype": torch.bfloat16,
            "enabled": job.recipe.precision == "bf16",
            "cache_enabled": False,  # a graph must not keep what another step made
        }

    def use_kernels(self, module: nn.Module) -> None:
        """Leave kernels to cuDNN, but for pooling: its gradient adds in any order."""
        for layer in module.modules():
            if type(layer) is nn.MaxPool2d:
                layer.__class__ = _MaxPool

    def record(self) -> None:
        """Leave it to the graphs."""

    def set_rates(self, rate: float, share: float) -> None:
        """Fill the tensors that hold the learning rate and the average's share."""
        self.rate.fill_(rate)
        self.average_share.fill_(share)

    def compute_shards(self, order: npt.NDArray[np.int64], step: int) -> None:
        """Set this process's rows by a graph, of images that were changed as drawn here."""
        size = self.sizes[self.epoch]
        self.batches.load(order, self.epoch, step, self.local_shards, size)
        body = super().compute_shards
        self.graphs.run(f"shards {size}", lambda: body(order, step), self._state)

    def update(self, rows: Tensor) -> Tensor:
        """Take a step by a graph."""
        self.gathered.copy_(rows)
        body = super().update
        loss = self.graphs.run("update", lambda: body(self.gathered), self._state)
        assert loss is not None
        return loss

    def batch(self, order: npt.NDArray[np.int64], step: int, shard: int) -> Batch:
        """Return a shard of what was loaded."""
        return self.batches.batch(shard - self.local_shards.start)

    def shard_loss(self, batch: Batch) -> Tensor:
        """Return the loss of one shard, in the recipe's precision."""
        with torch.autocast(**self.autocast):  # type: ignore[arg-type]
            return super().shard_loss(batch)

    def _state(self) -> list[Tensor]:
        return [*self.tensors().values(), self.flat.grads]


class DeviceBatches:
    """The packed images on a device, and one step's shards of them."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self.whole = on_processor(dataset.recipe.augment)
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.one_hot = torch.eye(dataset.classes, device=device)
        self.size: Size | None = None
        self.loaded: dict[str, Tensor] = {}  # name: (local shards, B, ...), the same tensors always

    def load(
        self, order: npt.NDArray[np.int64], epoch: int, step: int, shards: range, size: Size
    ) -> None:
        """Draw the shards of a step, and copy what was drawn to the device."""
        if size != self.size:
            self.size, self.loaded = size, {}
            if not self.whole:
                pixels = np.array(self.dataset.images[size])  # torch takes no read-only memory
                self.images = torch.from_numpy(pixels).to(self.device)  # (N, H, W, 3)
        made = [self._drawn(order, epoch, step, shard, size) for shard in shards]
        for name in made[0] if made else ():
            stacked = torch.from_numpy(np.stack([one[name] for one in made]))
            if name in self.loaded:
                self.loaded[name].copy_(stacked)
            else:
                self.loaded[name] = stacked.to(self.device)

    def _drawn(
        self, order: npt.NDArray[np.int64], epoch: int, step: int, shard: int, size: Size
    ) -> dict[str, npt.NDArray[Any]]:
        if self.whole:
            made = self.dataset.shard(order, epoch, step, shard, size)._asdict()
            return {name: tensor.numpy() for name, tensor in made.items() if tensor is not None}
        chosen, rng = self.dataset.address_of(order, epoch, step, shard)
        draws = draw((len(chosen), *size), rng, self.dataset.recipe.augment)
        return draws | {"chosen": chosen}

    def batch(self, place: int) -> Batch:
        """Return one of the loaded shards, changed as drawn: nothing but torch operations."""
        drawn = {name: tensor[place] for name, tensor in self.loaded.items()}
        if self.whole:
            inputs = drawn.pop("inputs").contiguous(memory_format=torch.channels_last)
            return Batch(inputs, **drawn)
        chosen = drawn.pop("chosen")
        images = self.images[chosen].permute(0, 3, 1, 2).float()
        targets = self.one_hot[self.labels[chosen]]
        images, targets = apply(images, targets, drawn, self.dataset.finer)
        inputs = images * (2 / 255) - 1  # as images.normalize
        return Batch(inputs.contiguous(memory_format=torch.channels_last), targets)


class Graphs:
    """Functions of tensors that stay, each recorded as a CUDA graph when it first runs.

    On the processor the function that came first is called again and again: what a graph would not
    see changes nothing there either.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bodies: dict[str, Body] = {}
        self.graphs: dict[str, tuple[torch.cuda.CUDAGraph, Tensor | None]] = {}

    def run(self, name: str, body: Body, state: Callable[[], list[Tensor]]) -> Tensor | None:
        """Run what was recorded as `name`, or record it; return its tensor.

        `state` gives all that it changes and reads again: it is put back after the warm-up.
        """
        if self.device.type == "cpu":
            return self.bodies.setdefault(name, body)()
        if name not in self.graphs:
            self.graphs[name] = self._record(body, state())
        graph, result = self.graphs[name]
        graph.replay()
        return result

    def _record(
        self, body: Body, state: list[Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, Tensor | None]:
        kept = [tensor.clone() for tensor in state]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                body()
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, before in zip(state, kept, strict=True):
            tensor.copy_(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # NCCL watches elsewhere
            result = body()
        return graph, result


class _MaxPool(nn.MaxPool2d):
    """Max pooling as the largest of shifted maps: cuDNN's gradient adds in any order."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, padding = (
            int(side[0] if isinstance(side, tuple) else side)
            for side in (self.kernel_size, self.stride, self.padding)
        )
        padded = F.pad(x, [padding] * 4, value=-torch.inf)
        down, right = ((side - kernel) // stride * stride + 1 for side in padded.shape[2:])
        shifted = [
            padded[:, :, i : i + down : stride, j : j + right : stride]
            for i in range(kernel)
            for j in range(kernel)
        ]
        return reduce(torch.maximum, shifted)


def _device(name: str, group: ProcessGroup) -> torch.device:
    """Return the device of a process: its own GPU where there is one for each."""
    if name != "cuda":
        return torch.device(name)
    if group.size > 1:
        rank = int(os.environ.get("LOCAL_RANK", group.rank))
        torch.cuda.set_device(rank % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())
