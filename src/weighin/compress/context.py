"""What the compressing stages share: data, recipe, parameters, and a trained network on disk.

A network is network.yaml (rows), ranks.yaml and weights.safetensors. ranks.yaml has a line a
factorized layer, to read and to edit; a network is rebuilt from it alone:

    2.0.conv.6: {method: svd, ranks: [4]}
    5.1.conv.0: {method: tucker, ranks: [12, 20]}
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weighin.errors import NetworkError
from weighin.files import read_json, read_yaml, write_text
from weighin.grading.risk import expected_score
from weighin.grading.score import ConfusionMatrix
from weighin.network.build import Factorization, ranks_from_dict
from weighin.network.export import contest_cost
from weighin.network.spec import read_spec
from weighin.params import Params, Recipe, load_recipe
from weighin.training.augment import weaker
from weighin.training.train import train_job
from weighin.training.trainer import Job, TrainingResult
from weighin.training.weights import Trained, read_weights, write_weights

RETRAIN = "train again with a lower learning rate (recipe.lr): dvc repro train"


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
    lines = [
        f"{path}: {{method: {how.method}, ranks: [{', '.join(map(str, how.ranks))}]}}\n"
        for path, how in sorted(network.ranks.items())
    ]
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
