"""A small packed data set and a small job, made the same in every process of a test."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from weighin.data.pack import COLUMNS, array_path, write_array, write_table
from weighin.determinism import generator
from weighin.files import write_json
from weighin.golden import plain_recipe
from weighin.images import Pixels, Size
from weighin.network.spec import NetworkSpec
from weighin.training.trainer import Job

CLASSES = ("can", "cup", "jar")
ROWS = [
    [1, "Conv", [8, 3, 2, None, 1, "ReLU"]],
    [1, "InvertedResidualv3", [3, 2, 8, 1, 1, 1]],
    [1, "ShuffleNetV2", [2]],
    [1, "GlobalAvgPool", []],
    [1, "Flatten", []],
    [1, "Linear", ["classes"]],
]
PLAIN = plain_recipe()
AUGMENT = replace(PLAIN.augment, flip=0.5, translate=0.1, color=0.2)
LOSS = replace(PLAIN.loss, soft_f1=0.5)
RECIPE = replace(PLAIN, shards=4, low_resolution=0.5, augment=AUGMENT, loss=LOSS)


def make_pack(folder: Path, counts: tuple[int, int] = (40, 21)) -> Path:
    """Write a pack of noisy bars, upright, lying or slanted, at 16 x 16 and 12 x 12 pixels."""
    rows: list[tuple[Any, ...]] = []
    for split, count in zip(("train", "validation"), counts, strict=True):
        for size in ((16, 16), (12, 12)):
            pictures = np.stack([picture(split, i, size) for i in range(count)])
            write_array(array_path(folder, split, size), [pictures], pictures.shape)
        rows += [(split, i, CLASSES[i % 3], f"{split}/{i}.png", "", "") for i in range(count)]
    write_table(folder / "images.csv", rows, COLUMNS)
    write_json(folder / "classes.json", list(CLASSES))
    return folder


def picture(split: str, number: int, size: Size) -> Pixels:
    rng = generator("picture", split, number)
    noise = rng.integers(0, 90, (16, 16, 3)).astype(np.uint8)
    at = int(rng.integers(2, 13))
    along = np.arange(16)
    places = [(along, at), (at, along), (along, (along + at) % 16)][number % 3]
    noise[places] += np.uint8(120)
    return noise[: size[0], : size[1]]


def make_job(packed: Path, **changes: Any) -> Job:
    spec = NetworkSpec.from_dict({"input": [16, 16], "width": 1.0, "rows": ROWS})
    return replace(Job(spec, RECIPE, 4, packed, (1, "train")), **changes)
