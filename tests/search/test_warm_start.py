"""Trials that start from the weights of others: of which, with what, and the same bytes always."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weighin.grading.score import Cost, Metrics
from weighin.network.spec import NetworkSpec
from weighin.params import Params
from weighin.search.runner import Family, inherited, is_finite
from weighin.search.stages import search
from weighin.search.study import Proposal, Trial, proxy_score
from weighin.training.weights import read_weights

LONG = {"trials": 9, "generation": 3, "epochs": 2, "halving": 2}
Outputs = dict[str, bytes]


def trial(params: Params, number: int, widths: tuple[int, ...]) -> Trial:
    """Return a trial of a network of 3 x 3 convolutions of these widths."""
    rows: list[Any] = [[1, "Conv", [width, 3, 1]] for width in widths]
    rows += [[1, "GlobalAvgPool", []], [1, "Flatten", []], [1, "Linear", ["classes"]]]
    spec = NetworkSpec.from_dict({"input": [8, 8], "width": 1.0, "rows": rows})
    return Trial(number, Proposal({}, spec, params.recipe, Cost(1, 1, 1, 1)))


def test_a_trial_starts_from_the_one_that_it_shares_most_with(params: Params) -> None:
    family = Family(9, 0, "search")
    new = trial(params, 9, (8, 16, 16))
    assert family.parent(new) is None
    family.add(trial(params, 0, (8, 24, 24)))  # the first convolution alone: under the least
    assert family.parent(new) is None
    family.add(trial(params, 1, (8, 16, 24)))
    assert family.parent(new) == 1
    family.add(trial(params, 2, (8, 16, 16)))
    family.add(trial(params, 3, (8, 16, 16)))
    assert family.parent(new) == 2
    assert family.parent(trial(params, 9, (8, 16, 24))) == 1
    assert family.finished(2).number == 2


def test_weights_of_one_name_and_shape_are_inherited(params: Params) -> None:
    family = Family(9, 0, "search")
    own, other = (family.initial(trial(params, n, (8, w))) for n, w in ((1, 16), (2, 24)))
    found = inherited(own, other)
    assert found.keys() == own.keys()
    for name, array in found.items():
        expected = other[name] if name in other and other[name].shape == array.shape else own[name]
        np.testing.assert_array_equal(array, expected)
    first, second = (next(name for name in own if name.startswith(f"{row}.")) for row in (0, 1))
    assert not np.array_equal(found[first], own[first])
    assert np.array_equal(found[second], own[second])


def searched(packed: Path, params: Params, folder: Path, **changes: Any) -> Outputs:
    found = replace(params.search, **(LONG | {"warm_start": True} | changes))
    search(packed, folder / "out", replace(params, search=found), folder / "scratch")
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


@pytest.fixture(scope="module")
def warm(packed: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """The outputs of a search with warm starts by one worker."""
    return searched(packed, params, tmp_path_factory.mktemp("warm"))


def rows(outputs: Outputs) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(outputs["trials.json"])["trials"]
    return found


def test_parents_are_finished_trials_of_earlier_generations(
    packed: Path, params: Params, tmp_path: Path, warm: Outputs
) -> None:
    cold = rows(searched(packed, params, tmp_path, warm_start=False))
    found = rows(warm)
    complete = {row["number"] for row in found if row["state"] == "complete"}
    born = {row["number"]: place // 3 for place, row in enumerate(found)}
    parents = {row["number"]: row["parent"] for row in found if "parent" in row}
    assert parents and set(parents.values()) <= complete
    assert all(born[parent] < born[child] for child, parent in parents.items())
    assert found[:3] == cold[:3]
    assert not any("parent" in row for row in cold)
    assert {row["number"]: row["f1"] for row in found} != {row["number"]: row["f1"] for row in cold}


def test_any_number_of_workers_makes_the_same_study(
    packed: Path, params: Params, tmp_path: Path, warm: Outputs
) -> None:
    assert searched(packed, params, tmp_path, workers=2) == warm


def test_a_search_whose_weights_are_lost_trains_the_parents_again(
    packed: Path, params: Params, tmp_path: Path, warm: Outputs
) -> None:
    assert searched(packed, params, tmp_path) == warm
    kept = list((tmp_path / "scratch").glob("*.safetensors"))
    assert len(kept) >= 6  # two of each generation of three
    for path in kept:
        path.unlink()
    assert searched(packed, params, tmp_path) == warm
    parents = {row["parent"] for row in rows(warm) if "parent" in row}
    again = {int(path.name.split("-")[0]) for path in (tmp_path / "scratch").glob("*.safetensors")}
    assert parents <= again


def test_weights_that_were_damaged_are_as_good_as_lost(
    packed: Path, params: Params, tmp_path: Path, warm: Outputs
) -> None:
    searched(packed, params, tmp_path, trials=6)
    kept = list((tmp_path / "scratch").glob("*.safetensors"))
    for path in kept:
        half = path.stat().st_size // 2
        path.write_bytes(path.read_bytes()[:half] + bytes(path.stat().st_size - half))
    assert searched(packed, params, tmp_path) == warm


def test_a_training_that_diverged_has_no_children(
    packed: Path, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = replace(params, recipe=replace(params.recipe, lr=100.0, weight_decay=10.0))
    found = rows(searched(packed, wild, tmp_path, halving=1))
    assert [row["state"] for row in found].count("complete") == 9
    weights = [read_weights(path) for path in (tmp_path / "scratch").glob("*.safetensors")]
    assert not any(is_finite(one) for one in weights)
    assert not any("parent" in row for row in found)


def test_a_longer_search_goes_on_from_a_finished_one(
    packed: Path, params: Params, tmp_path: Path, warm: Outputs
) -> None:
    searched(packed, params, tmp_path, trials=6)
    assert searched(packed, params, tmp_path) == warm


def test_the_choice_is_made_without_the_weights_of_others(
    packed: Path, params: Params, tmp_path: Path
) -> None:
    doubtful = replace(params, seed=1)
    study = json.loads(searched(packed, doubtful, tmp_path)["trials.json"])
    finalists = {one["number"]: one for one in study["splits"]}
    assert len(finalists) == 4 and study["chosen"] == study["splits"][0]["number"]
    assert all(len(one["scores"]) == 1 and one["error"] == 0 for one in finalists.values())
    assert "trained without the weights of others" in study["why"]
    for row in study["trials"]:
        if row["number"] in finalists:
            measured = proxy_score(params.contest, Metrics(row["f1"], 0.0, row["macs"], 0))
            same = finalists[row["number"]]["mean"] == pytest.approx(measured, abs=2e-6)
            assert same == ("parent" not in row)
