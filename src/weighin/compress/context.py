"""What the compressing stages share: a trained network on disk, trained on, and measured.

A network is network.yaml (rows), ranks.yaml and weights.safetensors. ranks.yaml has a line a
factorized layer, to read and to edit; a network is rebuilt from it alone:

    2.0.conv.6: {method: svd, ranks: [4]}
    5.1.conv.0: {method: tucker, ranks: [12, 20]}

What a change of some layers does is measured without training. A factorized layer computes what a
dense layer with the product of its factors does, so layers are measured by putting that product
into the network as it is.

What comes into a layer is measured too, so that a factorization keeps its outputs rather than its
weights. For inputs x with second moment C = E[x x^T] (I, I) over images and positions, the outputs'
mean squared error under a weight A is tr((W - A) C (W - A)^T), which is ||(W - A) S||^2 for
S = C^(1/2). So W S is factorized, and the first piece is multiplied by S^-1: at full rank nothing
changes, and for svd the truncation is the best there is (Zhang et al., "Accelerating very deep
convolutional networks for classification and detection", TPAMI 2016, without their nonlinearity).
For k x k kernels the inputs of neighbouring positions are taken as unrelated.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from torch import nn

from weighin.data.pack import read_packed
from weighin.determinism import generator
from weighin.errors import NetworkError
from weighin.files import flow, read_json, read_yaml, write_text
from weighin.grading.risk import expected_score
from weighin.grading.score import ConfusionMatrix, confusion_of_indices
from weighin.images import normalize
from weighin.network.build import Factorization, ranks_from_dict, ranks_to_dict, watching
from weighin.network.export import contest_cost
from weighin.network.spec import read_spec
from weighin.params import Params, Recipe, load_recipe
from weighin.training.augment import weaker
from weighin.training.process_group import ProcessGroup
from weighin.training.train import train_job
from weighin.training.trainer import CHUNK, Job, TrainingResult, predict_logits
from weighin.training.weights import Trained, read_weights, write_weights

Array = npt.NDArray[np.float64]
RETRAIN = "train again with a lower learning rate (recipe.lr): dvc repro train"
SAMPLE = 256  # training images behind a divergence
KEPT = 2**23  # numbers entering a row that are kept (32 MB): others are computed again
RIDGE = 1e-3  # of the mean variance, added to each channel: one that never fires keeps its weights


@dataclass(frozen=True)
class CompressionContext:
    """A trained network to compress; `scratch` keeps what a killed run has finished."""

    packed: Path
    trained: Trained
    recipe: Recipe
    params: Params
    scratch: Path

    def __post_init__(self) -> None:
        """Refuse a network that diverged (NetworkError)."""
        check_finite(self.trained)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return tuple(read_json(self.packed / "classes.json"))

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.names)

    def score(self, network: Trained, found: ConfusionMatrix) -> float:
        """Return the expected score of a network that labels so, exported; lower is better.

        Raises:
            NetworkError: rows and ranks do not make a network.
        """
        params, names = self.params, self.names
        needs = contest_cost(network.spec, names, params.contest, params.quantize, network.ranks)
        return expected_score(params.contest, found, needs, params.seed).expected

    def train_on(
        self, network: Trained, name: str, lr: float, distillation: float, **changes: Any
    ) -> TrainingResult:
        """Return a compressed network trained on, with the network as trained for a teacher.

        `lr` is the schedule's peak, `distillation` the weight of the teacher's labels, `changes`
        are other fields of the Job, and `augment`, the share of the recipe's augmentation. `name`
        is the random address, and that of the state in `scratch`.

        Raises:
            WorkerError, OutputError: run again, it goes on from the last finished epoch.
        """
        workers, curve = changes.pop("workers", "auto"), changes.pop("curve", None)
        augment = weaker(self.recipe.augment, changes.pop("augment", 1.0))
        job = Job(
            spec=network.spec,
            recipe=replace(self.recipe, lr=lr, low_resolution=0.0, augment=augment),
            packed=self.packed,
            address=(self.params.seed, name),
            ranks=network.ranks,
            start=network.weights,
            teacher=self.trained if distillation else None,
            distillation=distillation,
            **changes,
        )
        return train_job(name, job, workers, self.scratch, curve)


def read_context(work: Path, params: Params, scratch: Path) -> CompressionContext:
    """Return the context of a stage: what the stages before it left in the folder `work`.

    Raises:
        NetworkError, ParamsError: a file is missing, or is not what it should be.
    """
    trained = Trained(
        read_spec(work / "search/network.yaml"), read_weights(work / "train/weights.safetensors")
    )
    recipe = load_recipe(work / "tune/recipe.json")
    return CompressionContext(work / "prepare", trained, recipe, params, scratch)


def write_network(folder: Path, network: Trained) -> None:
    """Write a network's three files; equal ranks give equal bytes.

    Raises:
        OutputError: the folder cannot be written.
    """
    lines = [f"{path}: {flow(how)}\n" for path, how in ranks_to_dict(network.ranks).items()]
    write_text(folder / "network.yaml", network.spec.to_yaml())
    write_text(folder / "ranks.yaml", "".join(lines) or "{}\n")
    write_weights(folder / "weights.safetensors", network.weights)


def check_finite(network: Trained) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        NetworkError: it names the first of them.
    """
    for name, array in sorted(network.weights.items()):
        if not np.isfinite(array).all():
            raise NetworkError(f"{name} holds numbers that are not finite", RETRAIN)


def read_network(folder: Path) -> Trained:
    """Return the network in a folder; without a ranks.yaml no layer of it is factorized.

    Raises:
        NetworkError: a file is missing, or is not what it should be.
    """
    path = folder / "ranks.yaml"
    return Trained(
        read_spec(folder / "network.yaml"),
        read_weights(folder / "weights.safetensors"),
        read_ranks(path) if path.exists() else {},
    )


def read_ranks(path: Path) -> dict[str, Factorization]:
    """Return the ranks in a file.

    Raises:
        NetworkError: it is missing, is not YAML, or a line is not of the form above.
    """
    return ranks_from_dict(read_yaml(path, NetworkError), str(path))


class Probe:
    """A trained network, a sample of the training images, and the validation split."""

    def __init__(self, packed: Path, network: Trained, seed: int) -> None:
        self.network = network
        train = read_packed(packed, "train", network.spec.input)
        self.validation = read_packed(packed, "validation", network.spec.input)
        module = network.module(len(train.classes))
        self.module = cast(nn.Sequential, module.to(memory_format=torch.channels_last))
        order = generator(seed, "decompose", "sample").permutation(len(train.labels))
        self.sample = np.asarray(train.images[np.sort(order[:SAMPLE])])

    @cached_property
    def own(self) -> Array:
        """The unchanged network's log-probabilities (N, K) on the sample."""
        answers = self._answers(0, normalized(self.sample))
        if not np.isfinite(answers).all():
            raise NetworkError("the network's logits of training images are not finite", RETRAIN)
        return answers

    @cached_property
    def entering(self) -> dict[int, torch.Tensor]:
        """What enters each row of the unchanged network for the sample, where it is small."""
        x = normalized(self.sample)
        found = {0: x}
        with torch.inference_mode():
            for number, row in enumerate(self.module, 1):
                x = row(x)
                if x.numel() <= KEPT:
                    found[number] = x
        return found

    def divergence(self, changes: Mapping[str, Array]) -> float:
        """Return the mean KL(own labels || changed labels), in nats, on the sample.

        It needs no true labels, and unlike F1 it tells small changes apart. Rows before the first
        change are not run again.
        """
        first = min((int(path.partition(".")[0]) for path in changes), default=0)
        start = max(number for number in self.entering if number <= first)
        own = self.own
        with self._changed(changes):
            changed = self._answers(start, self.entering[start])
        return float(np.sum(np.exp(own) * (own - changed), axis=1).mean())

    def _answers(self, start: int, x: torch.Tensor) -> Array:
        with torch.inference_mode():
            for row in self.module[start:]:
                x = row(x)
        return log_softmax(x.double().numpy(), axis=1)  # type: ignore[no-any-return]

    def confusion(self, changes: Mapping[str, Array] | None = None) -> ConfusionMatrix:
        """Return how the validation images are labelled."""
        with self._changed(changes or {}):
            logits = predict_logits(self.module, self.validation.images, ProcessGroup())
        return confusion_of_indices(
            self.validation.labels, logits.argmax(1), self.validation.classes
        )

    @contextmanager
    def _changed(self, changes: Mapping[str, Array]) -> Iterator[None]:
        layers = {path: self.module.get_submodule(path) for path in changes}
        weights = {k: cast(torch.Tensor, layer.weight).detach() for k, layer in layers.items()}
        before = {path: weight.clone() for path, weight in weights.items()}
        for path, weight in weights.items():
            weight.copy_(torch.from_numpy(changes[path]))
        try:
            yield
        finally:
            for path, weight in weights.items():
                weight.copy_(before[path])


def normalized(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) as a network's input (N, 3, H, W)."""
    return torch.from_numpy(normalize(images))


@dataclass(frozen=True)
class InputStatistics:
    """S and its inverse, both (I, I) and symmetric."""

    root: Array = field(repr=False)
    inverse: Array = field(repr=False)


def input_statistics(
    module: nn.Module, images: npt.NDArray[np.uint8], paths: Iterable[str]
) -> dict[str, InputStatistics]:
    """Return those of each named layer of a network in eval mode, over images (N, H, W, 3).

    Raises:
        NetworkError: what enters a layer overflows.
    """
    sums: dict[str, torch.Tensor] = {}

    def add(path: str, layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        x = x.movedim(1, -1).flatten(0, -2).double()  # (positions, I)
        sums[path] = sums.get(path, 0) + x.T @ x

    layers = {path: module.get_submodule(path) for path in paths}
    with watching(layers, add), torch.inference_mode():
        for at in range(0, len(images), CHUNK):
            module(normalized(images[at : at + CHUNK]))
    for path, total in sums.items():
        if not torch.isfinite(total).all():
            raise NetworkError(f"what enters {path} is not finite for training images", RETRAIN)
    return {path: statistics_of(total.numpy()) for path, total in sums.items()}


def statistics_of(moment: Array) -> InputStatistics:
    """Return S = C^(1/2) and S^-1 of a second moment C of any scale, with the ridge added."""
    size = len(moment)
    mean = float(np.trace(moment)) / size or 1.0
    values, vectors = np.linalg.eigh(moment / mean + RIDGE * np.eye(size))
    roots = np.sqrt(values)
    return InputStatistics((vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T)


def along_inputs(array: Array, matrix: Array) -> Array:
    """Return a weight or a first piece (R, I, ...) with `matrix` (I, I) applied along I."""
    return np.moveaxis(np.tensordot(array, matrix, axes=(1, 0)), -1, 1)
