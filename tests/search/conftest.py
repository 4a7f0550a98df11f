"""A handful of small pictures, packed, and parameters under which a search takes seconds."""

from dataclasses import replace
from pathlib import Path

import pytest

from weighin.data.demo import draw_demo
from weighin.data.prepare import prepare
from weighin.params import Params, load


@pytest.fixture(scope="session")
def params() -> Params:
    shipped = load(Path(__file__).parents[2] / "params.yaml")
    faults = replace(shipped.prepare.faults, small_class="keep")
    recipe = replace(shipped.recipe, shards=2, shard_size=8, low_resolution=0.0)
    return replace(
        shipped,
        prepare=replace(shipped.prepare, sizes=((24, 32), (32, 32)), group="none", faults=faults),
        recipe=recipe,
        search=replace(
            shipped.search,
            enabled=True,
            space="tiny",
            sampler="tpe",
            objective="score",
            trials=4,
            generation=4,
            epochs=2,
            halving=2,
            shards=1,
            workers=1,
            cluster=None,
        ),
        tune=replace(
            shipped.tune,
            enabled=True,
            trials=4,
            generation=4,
            epochs=2,
            stop=0.5,
            shards=1,
            space={"lr": [0.01, 0.3], "augment.randaugment": [0, 2]},
            workers=1,
            cluster=None,
        ),
    )


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    folder = tmp_path_factory.mktemp("search")
    draw_demo(folder / "data", 90, 32)
    prepare(folder / "data", folder / "packed", params.prepare, 0, 1)
    return folder / "packed"
