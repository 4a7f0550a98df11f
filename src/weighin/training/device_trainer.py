"""The trainer on a GPU: the same step, its images and its loop living on the device.

The packed images lie there as uint8. `draw` takes the random numbers of augment.py from the same
address, on the processor: some tens of numbers an image. `apply` changes the images by them, as
torch operations: whole numbers come out as augment.py's, what interpolates is within one level of
them. RandAugment, JPEG and new backgrounds have no such form: a recipe with one of them has its
images changed on the processor, and only the pixels go to the GPU.

A step is two CUDA graphs, each recorded once and replayed: the shards' forward and backward, and
the update; between them the processes' rows are gathered. A graph computes on the memory it was
recorded with, so whatever differs from step to step is copied into tensors that stay.

The same code runs on the processor as a rehearsal (device.REHEARSAL), without graphs: the tests of
its bytes are made so. Not yet run on a GPU.

Shapes: B images of H x W pixels, K classes. Images that are changed are float32 (B, 3, H, W) of
whole numbers from 0 to 255.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from weighin.images import Size
from weighin.params import Augment
from weighin.training import augment
from weighin.training.augment import GREY, SHARPEST, Shape
from weighin.training.dataset import Batch, Dataset
from weighin.training.device import pin_device
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Job, Trainer

WARM_UP = 3  # runs before a graph is recorded: libraries choose their kernels in them
Body = Callable[[], Tensor | None]
Draws = dict[str, npt.NDArray[Any]]  # each (B, ...)
Drawn = Mapping[str, Tensor]


class DeviceTrainer(Trainer):
    """The live state of one job on a device, in one process of a group."""

    def __init__(self, group: ProcessGroup, job: Job) -> None:
        device = _device(job.recipe.device, group)
        if device.type == "cuda":
            pin_device(job.recipe)
        super().__init__(group, job, device)
        self.on_device = DeviceBatches(self.dataset, device)
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

    def batches(self, order: npt.NDArray[np.int64]) -> Iterator[list[Batch]]:
        """Load each step's shards; `compute_shards` takes them from there, inside its graph."""
        for step in range(self.dataset.steps):
            size = self.sizes[self.epoch]
            self.on_device.load(order, self.epoch, step, self.local_shards, size)
            yield []

    def compute_shards(self, batches: Sequence[Batch]) -> None:
        """Set this process's rows by a graph, of images that were changed as drawn here."""
        body, places = super().compute_shards, range(len(self.local_shards))
        self.graphs.run(
            f"shards {self.sizes[self.epoch]}",
            lambda: body([self.on_device.batch(place) for place in places]),
            self._state,
        )

    def update(self, rows: Tensor) -> Tensor:
        """Take a step by a graph."""
        self.gathered.copy_(rows)
        body = super().update
        loss = self.graphs.run("update", lambda: body(self.gathered), self._state)
        assert loss is not None
        return loss

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


def on_processor(knobs: Augment) -> bool:
    """Whether a recipe has a change that is made on the processor alone."""
    return bool(knobs.randaugment or knobs.jpeg or knobs.background)


def draw(shape: Shape, rng: Generator, knobs: Augment) -> Draws:
    """Return what `augment.augment` draws for a batch of a shape, in its order."""
    count, draws = shape[0], Draws()
    if knobs.flip or knobs.flip_vertical:
        draws["mirrored"] = augment.mirrors(count, rng, knobs)
    if augment.moves(knobs):
        draws["map"] = augment.source_maps(shape, rng, knobs).astype(np.float32)
    if knobs.translate:
        draws["shift"] = augment.shifts(shape, rng, knobs.translate)
    if knobs.color:
        matrix, share = augment.color_maps(count, rng, knobs.color)
        draws |= {"color": matrix.astype(np.float32), "mean": share[:, 0, 0]}
    draws |= _draw_degradations(shape, rng, knobs)
    if knobs.cutout:
        draws["cutout"] = augment.squares(shape, rng, knobs.cutout)
    if knobs.mixup:
        draws["mixup"] = np.full(count, rng.beta(knobs.mixup, knobs.mixup), np.float32)
        draws["mixup_partner"] = rng.permutation(count)
    if knobs.cutmix:
        box, partner = augment.cutmix_box(shape, rng, knobs.cutmix)
        draws |= {"cutmix": np.tile(box, (count, 1)), "cutmix_partner": partner}
        draws["cutmix_kept"] = np.full(count, augment.kept_share(shape, box))
    return draws


def _draw_degradations(shape: Shape, rng: Generator, knobs: Augment) -> Draws:
    """Draw the blur, light and noise of the images that have any; others are left alone."""
    count, height, width = shape
    found: Draws = {
        "blur": np.zeros(count, np.float32),
        "dark": np.tile(np.arange(256, dtype=np.uint8), (count, 1)),
        "noise": np.zeros((count, height, width, 3), np.int8),
    }
    draws = {name: array for name, array in found.items() if getattr(knobs, name)}
    for name, array in draws.items():
        chosen = np.flatnonzero(rng.random(count) < getattr(knobs, name))
        for i, strength in zip(chosen, rng.random(len(chosen)).tolist(), strict=True):
            if name == "blur":
                array[i] = _neighbor_weight(SHARPEST + strength)
            elif name == "dark":
                array[i] = augment.tone_curve(strength, rng)
            else:
                array[i] = augment.noise((height, width, 3), strength, rng)
    return draws


def _neighbor_weight(radius: float) -> float:
    """Return a neighbor's weight over the middle's in each of Pillow's three box blurs.

    Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering",
    2011; a radius under 1.4 pixels makes boxes of under three.
    """
    variance = radius**2 / 3
    return 0.5 * variance / (1 - variance)


def apply(images: Tensor, targets: Tensor, drawn: Drawn, finer: int = 1) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, H, W) and targets (B, K) changed as drawn.

    The images that come in may be `finer` times larger a side; then they are moved by maps.
    """
    if "mirrored" in drawn:
        for axis, chosen in enumerate(drawn["mirrored"].unbind(1)):
            images = torch.where(_column(chosen), images.flip(2 + axis), images)
    if "map" in drawn:
        images = _warped(images, drawn["map"], finer)
    if "shift" in drawn:
        images = _shifted(images, drawn["shift"])
    if "color" in drawn:
        images = _colored(images, drawn["color"], drawn["mean"])
    if "blur" in drawn:
        images = _blurred(images, drawn["blur"])
    if "dark" in drawn:
        curve = drawn["dark"].float().gather(1, images.flatten(1).long())
        images = curve.view(images.shape)
    if "noise" in drawn:
        images = (images + drawn["noise"].permute(0, 3, 1, 2)).clamp(0, 255)
    if "cutout" in drawn:
        grey = images.new_full((), GREY)
        images = torch.where(_inside(drawn["cutout"], images), grey, images)
    if "mixup" in drawn:
        weight, partner = drawn["mixup"], drawn["mixup_partner"]
        blended = images * _column(weight) + images[partner] * (1 - _column(weight)) + 0.5
        images, targets = blended.floor(), _mixed(targets, weight, partner)
    if "cutmix" in drawn:
        partner = drawn["cutmix_partner"]
        images = torch.where(_inside(drawn["cutmix"], images), images[partner], images)
        targets = _mixed(targets, drawn["cutmix_kept"], partner)
    return images, targets


def _warped(images: Tensor, maps: Tensor, finer: int) -> Tensor:
    """Return each image through its map (B, 6) from an output pixel to its source."""
    height, width = (side // finer for side in images.shape[2:])
    a, b, c, d, e, f = (_column(part)[:, 0] for part in maps.unbind(1))  # (B, 1, 1)
    y, x = (torch.arange(side, device=images.device)[:, None] for side in (height, width))
    grey, total = images.new_full((), GREY), images.new_zeros(())
    places = [(2 * place + 1) / (2 * finer) for place in range(finer)]
    for across, along in itertools.product(places, places):
        down, right = y + across, x.T + along
        from_x, from_y = a * right + b * down + c, d * right + e * down + f  # (B, H, W)
        inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
        sides = (from_x * 2 / width - 1, from_y * 2 / height - 1)
        grid = torch.stack([side.expand(len(images), height, width) for side in sides], 3)
        sampled = F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
        total = total + torch.where(inside[:, None], sampled, grey)
    return (total / finer**2 + 0.5).floor()


def _shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Return images whose windows moved by whole pixels (B, 2); edges are reflected."""
    rows, columns = (
        _reflected(torch.arange(side, device=images.device) + shift[:, None], side)
        for side, shift in zip(images.shape[2:], shifts.unbind(1), strict=True)
    )
    which = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _reflected(places: Tensor, side: int) -> Tensor:
    return side - 1 - (side - 1 - places.abs()).abs()


def _colored(images: Tensor, matrix: Tensor, share: Tensor) -> Tensor:
    """Return images times their matrices (B, 3, 3), plus a share (B,) of their mean."""
    mean = images.flatten(1).sum(1, dtype=torch.float64) / images[0].numel()
    shift = (share * mean + 0.5).float()
    red, green, blue = images.unbind(1)  # sums written out: a matrix product's depends on B
    mixed = [
        red * _column(matrix[:, 0, i])[:, 0]
        + green * _column(matrix[:, 1, i])[:, 0]
        + blue * _column(matrix[:, 2, i])[:, 0]
        + _column(shift)[:, 0]
        for i in range(3)
    ]
    return torch.stack(mixed, 1).clamp(0, 255).floor()


def _blurred(images: Tensor, weights: Tensor) -> Tensor:
    """Return images after three boxes a direction, a neighbor's weight (B,) over the middle's."""
    weight = _column(weights)
    for pad in ((1, 1, 0, 0), (0, 0, 1, 1)):
        dim = 3 if pad[0] else 2
        for _ in range(3):
            around = F.pad(images, pad, "replicate")
            before = around.narrow(dim, 0, images.shape[dim])
            after = around.narrow(dim, 2, images.shape[dim])
            summed = (images + weight * (before + after)) / (1 + 2 * weight)
            images = (summed + 0.5).floor()
    return images


def _inside(boxes: Tensor, images: Tensor) -> Tensor:
    """Return which pixels (B, 1, H, W) are in each image's box (top, left, bottom, right)."""
    top, left, bottom, right = (_column(side) for side in boxes.unbind(1))
    y, x = (torch.arange(side, device=images.device) for side in images.shape[2:])
    y = y[:, None]
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def _mixed(targets: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    return targets * weight[:, None] + targets[partner] * (1 - weight[:, None])


def _column(values: Tensor) -> Tensor:
    """Return one value an image (B,) as (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
