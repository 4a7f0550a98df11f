"""A small packed data set, network and parameters, made the same in every process of a test."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from weighin.data.pack import COLUMNS, array_path, write_array, write_table
from weighin.determinism import generator
from weighin.files import write_json
from weighin.golden import plain_recipe
from weighin.images import Pixels
from weighin.network.build import build, initialize
from weighin.network.spec import NetworkSpec
from weighin.params import Params, load
from weighin.training.process_group import ProcessGroup
from weighin.training.trainer import Job, fit
from weighin.training.weights import Trained, module_weights

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
PLAIN = plain_recipe()
RECIPE = replace(
    PLAIN, shard_size=16, lr=0.3, ema=0, balance=0, loss=replace(PLAIN.loss, smoothing=0)
)
SMALL: dict[str, dict[str, Any]] = {
    "contest": {"score": "waste", "reference_macs": 13_865_375},
    "prepare": {"turn_tall": True},
    "train": {"workers": 1, "all_data": False},
    "decompose": {
        "enabled": True,
        "method": "tucker",
        "ranks": "ratio",
        "ratio": 0.25,
        "energy": 0.8,
        "budget": 0.7,
        "trials": 4,
        "prune_blocks": 0,
        "prune_channels": 0.0,
        "prune_epochs": 1,
    },
    "quantize": {
        "enabled": False,
        "calibration": "percentile",
        "percentile": 99.99,
        "images": 64,
        "max_loss": 0.01,
    },
    "finetune": {
        "enabled": True,
        "epochs": 3,
        "lr": 0.05,
        "freeze": "nothing",
        "distillation": 1.0,
    },
}


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
    initialize(module, seed)
    return Trained(spec, module_weights(module))


@cache
def trained(packed: Path) -> Trained:
    job = Job(SPEC, RECIPE, 16, packed, (1, "train"))
    return Trained(SPEC, fit(ProcessGroup(), job).weights)


def make_params(**sections: dict[str, Any]) -> Params:
    """Return the project's parameters, those of a small run, with some knobs changed."""
    params = replace(load(Path(__file__).parents[2] / "params.yaml"), seed=1, recipe=RECIPE)
    knobs = {name: SMALL[name] | sections.get(name, {}) for name in SMALL}
    changed = {name: replace(getattr(params, name), **knobs[name]) for name in knobs}
    return replace(params, **changed)
