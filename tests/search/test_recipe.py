"""Tuning: what may be tuned, what trial 0 is, and what is written."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from weighin.errors import NetworkError
from weighin.files import read_json, write_json
from weighin.network.build import build, initialize
from weighin.network.spec import NetworkSpec, Row
from weighin.params import Params, load_recipe
from weighin.search.stages import tune
from weighin.search.trials import parse_trials
from weighin.training.weights import module_weights, write_weights
from weighin.validation import with_values

SPEC = NetworkSpec(
    (24, 32),
    1.0,
    (
        Row(1, "Conv", (8, 3, 4)),
        Row(1, "GlobalAvgPool"),
        Row(1, "Flatten"),
        Row(1, "Linear", ("classes",)),
    ),
)


def test_dotted_names_reach_into_sections(params: Params) -> None:
    changed = with_values(params.recipe, {"lr": 0.5, "loss.smoothing": 0.25})
    assert (changed.lr, changed.loss.smoothing) == (0.5, 0.25)
    assert replace(changed, lr=params.recipe.lr, loss=params.recipe.loss) == params.recipe


def test_switched_off_it_writes_the_recipe_as_it_is(
    packed: Path, params: Params, tmp_path: Path
) -> None:
    write_json(tmp_path / "out" / "trials.json", {})  # of an earlier run
    off = replace(params, tune=replace(params.tune, enabled=False))
    tune(packed, SPEC, tmp_path / "out", off, tmp_path / "scratch")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["recipe.json"]
    assert read_json(tmp_path / "out" / "recipe.json") == asdict(params.recipe)
    assert load_recipe(tmp_path / "out" / "recipe.json") == params.recipe


def test_trial_0_is_the_recipe_as_it_stands(packed: Path, params: Params, tmp_path: Path) -> None:
    outside = replace(params, recipe=replace(params.recipe, lr=0.5))  # over the space's 0.3
    tune(packed, SPEC, tmp_path / "out", outside, tmp_path / "scratch")
    values = read_json(tmp_path / "out" / "trials.json")
    study = parse_trials(values)
    assert study.trials[0].params == {"augment.randaugment": 0, "lr": 0.5}
    assert study.trials[0].state == "complete"
    assert [t.state for t in study.trials].count("complete") == 2
    recipe = load_recipe(tmp_path / "out" / "recipe.json")
    chosen = next(t for t in study.trials if t.number == study.chosen)
    assert recipe == with_values(outside.recipe, dict(chosen.params))
    for trial in study.trials[1:]:
        assert 0.01 <= trial.params["lr"] <= 0.3
        assert trial.params["augment.randaugment"] in (0, 1, 2)


def test_trials_start_from_initial_weights(packed: Path, params: Params, tmp_path: Path) -> None:
    classes, path = len(read_json(packed / "classes.json")), tmp_path / "given.safetensors"
    found = []
    for address in (None, "one", "two"):
        module = build(SPEC, classes)
        initialize(module, address or "")
        write_weights(path, module_weights(module))
        name = str(path) if address else None
        given = replace(params, train=replace(params.train, weights=name))
        tune(packed, SPEC, tmp_path / "out", given, tmp_path / "scratch")  # the caches are shared
        found.append((tmp_path / "out" / "trials.json").read_bytes())
    assert len(set(found)) == 3
    write_weights(path, {"other": np.zeros(1, np.float32)})
    with pytest.raises(NetworkError, match=r"1 unknown \(other\)"):
        tune(packed, SPEC, tmp_path / "out", given, tmp_path / "scratch")
