"""A small packed data set, network and parameters, made the same in every process of a test."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from weighin.compress.store import Trained
from weighin.data.pack import COLUMNS, array_path, write_array, write_table
from weighin.determinism import generator
from weighin.files import write_json
from weighin.images import Pixels
from weighin.network.build import build, initialise
from weighin.network.spec import NetworkSpec
from weighin.params import (
    Augment,
    Contest,
    Decompose,
    Faults,
    Finetune,
    Loss,
    Params,
    Prepare,
    Recipe,
    Report,
    Search,
    Train,
    Tune,
)
from weighin.training.job import Job
from weighin.training.loop import fit
from weighin.training.team import Team
from weighin.training.weights import module_weights

CLASSES = ("can", "cup", "jar")
SIZE = (16, 16)
ROWS = [
    [1, "Conv", [16, 3, 2, None, 1, "ReLU"]],
    [2, "FusedMBConv", [2, 16, 1, 3]],
    [2, "InvertedResidualv3", [3, 2, 16, 1, 1, 1]],
    [1, "Conv", [32, 1, 1, None, 1, "ReLU"]],
    [1, "GlobalAvgPool", []],
    [1, "Flatten", []],
    [1, "Linear", ["classes"]],
]
SPEC = NetworkSpec.from_dict({"input": list(SIZE), "width": 1.0, "rows": ROWS})
AUGMENT = Augment(0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
LOSS = Loss(1, 0, 0, 0, 2, 0, 0, 2)
RECIPE = Recipe(2, 16, "sgd", 0.3, 0.9, 1e-3, "one-cycle", 0.2, 0, 0, 0, AUGMENT, LOSS)


def make_pack(folder: Path, counts: tuple[int, int] = (96, 60)) -> Path:
    """Write a pack of noisy bars, upright, lying or slanted; `cup` is the commonest class."""
    rows: list[tuple[Any, ...]] = []
    for split, count in zip(("train", "validation"), counts, strict=True):
        labels = [(0, 1, 2, 1)[i % 4] for i in range(count)]
        pictures = np.stack([picture(split, i, label) for i, label in enumerate(labels)])
        write_array(array_path(folder, split, SIZE), [pictures], pictures.shape)
        rows += [
            (split, i, CLASSES[label], f"{split}/{i}.png", "", "") for i, label in enumerate(labels)
        ]
    write_table(folder / "images.csv", rows, COLUMNS)
    write_json(folder / "classes.json", list(CLASSES))
    return folder


def picture(split: str, number: int, label: int) -> Pixels:
    rng = generator("picture", split, number)
    noise = rng.integers(0, 140, (*SIZE, 3)).astype(np.uint8)
    at, along = int(rng.integers(2, 13)), np.arange(16)
    noise[[(along, at), (at, along), (along, (along + at) % 16)][label]] += np.uint8(100)
    return noise


def untrained(spec: NetworkSpec = SPEC, seed: int = 0) -> Trained:
    module = build(spec, len(CLASSES))
    initialise(module, seed)
    return Trained(spec, module_weights(module))


@cache
def trained(packed: Path) -> Trained:
    job = Job(SPEC, RECIPE, 16, packed, (1, "train"))
    return Trained(SPEC, fit(Team(), job).weights)


def make_params(**sections: dict[str, Any]) -> Params:
    """Return parameters with some knobs of some sections changed."""
    drop = Faults(*["drop"] * 7, "drop", 10, *["drop"] * 5, 2)
    params = Params(
        seed=1,
        contest=Contest("waste", 20_000_000, 13_865_375, 4_214_841, 0.83656, 0.5),
        prepare=Prepare((SIZE,), True, 0.25, "none", 4, drop),
        recipe=RECIPE,
        search=Search(True, None, "small", "tpe", "front", 9, 3, 8, 1, "auto", None),
        tune=Tune(True, 1, 1, 8, 0.5, {}, "auto", None),
        train=Train(8, 1, False, 0, 8),
        decompose=Decompose(True, "tucker", "ratio", 0.25, 0.8, 0.7, 4, 0, 0, 1),
        finetune=Finetune(True, 3, 0.05, "nothing", 1),
        report=Report(1000, 5),
    )
    changed = {name: replace(getattr(params, name), **knobs) for name, knobs in sections.items()}
    return replace(params, **changed)
