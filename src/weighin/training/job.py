"""What to train, and what comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.network.factorized import Factorization
from weighin.network.spec import NetworkSpec
from weighin.params import Recipe
from weighin.training.batches import Address
from weighin.training.weights import Weights

Epoch = dict[str, float]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Teacher:
    """A trained network whose labels are learned too."""

    spec: NetworkSpec
    weights: Weights
    ranks: Mapping[str, Factorization] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What to train, on what, how long, and from which random address."""

    spec: NetworkSpec
    recipe: Recipe
    epochs: int
    packed: Path
    address: Address
    ranks: Mapping[str, Factorization] = field(default_factory=dict)
    start: Weights | None = None
    freeze: str = "nothing"
    teacher: Teacher | None = None
    all_data: bool = False
    validations: int = 20  # during the run; more would cost more than they tell


@dataclass(frozen=True)
class Fitted:
    """A trained network: weights by name, history, and logits (N, K) on the validation split."""

    weights: dict[str, npt.NDArray[np.float32]]
    history: list[Epoch]
    logits: Logits
    state: bytes


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to hear: each finished epoch, and the state to keep."""

    epoch: Callable[[Epoch, int], None] = lambda row, images: None
    keep: Callable[[bytes], None] | None = None
