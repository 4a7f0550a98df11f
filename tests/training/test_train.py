"""The train stage: what it writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_job import CLASSES, RECIPE, make_job

from weighin.errors import NetworkError, ParamsError
from weighin.network.build import build
from weighin.params import Params, Train, load
from weighin.training.process_group import ProcessGroup
from weighin.training.train import train
from weighin.training.trainer import Trainer, fit
from weighin.training.weights import (
    Weights,
    initial_weights,
    load_state,
    load_weights,
    read_weights,
    unpack_state,
    write_weights,
)

PARAMS = load(Path(__file__).parents[2] / "params.yaml")


def params(**changes: object) -> Params:
    plain = replace(PARAMS.train, epochs=3, workers=1, all_data=False)
    section: Train = replace(plain, **changes)
    return replace(PARAMS, seed=1, train=section)


def test_weights_and_history(packed: Path, tmp_path: Path) -> None:
    spec, out = make_job(packed).spec, tmp_path / "out"
    train(packed, spec, RECIPE, params(), out, tmp_path / "scratch")
    assert sorted(p.name for p in out.iterdir()) == ["history.json", "weights.safetensors"]
    load_weights(build(spec, len(CLASSES)), read_weights(out / "weights.safetensors"))
    history = json.loads((out / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    last = history[-1]
    assert last["f1_low"] <= last["f1"] <= last["f1_high"]
    assert last["f1_low"] < last["f1_high"]
    assert 0 <= last["under_floor"] <= 1
    assert history[0].keys() == {"epoch", "loss", "lr", "f1", "accuracy"}


def test_the_risk_is_that_of_the_contests_floor(packed: Path, tmp_path: Path) -> None:
    spec, risks = make_job(packed).spec, []
    for floor in (0.0, 1.0):
        contest = replace(PARAMS.contest, floor_f1=floor)
        given = replace(params(), contest=contest)
        train(packed, spec, RECIPE, given, tmp_path / "out", tmp_path / "scratch")
        risks.append(json.loads((tmp_path / "out" / "history.json").read_text())[-1])
    assert [row["under_floor"] for row in risks] == [0, 1]


def test_a_finished_stage_run_again_writes_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        train(packed, make_job(packed).spec, RECIPE, params(), tmp_path / "out", tmp_path / "s")
        found.append({p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()})
    assert found[0] == found[1]


WILD = replace(RECIPE, lr=100.0, weight_decay=10.0)


def test_a_training_that_diverges_names_the_rate_and_keeps_no_such_state(
    packed: Path, tmp_path: Path
) -> None:
    spec, given = make_job(packed).spec, params(epochs=9)
    found = set()
    for _ in range(2):  # the second time from the last good state, or from the start
        with pytest.raises(ParamsError) as caught:
            train(packed, spec, WILD, given, tmp_path / "out", tmp_path)
        found.add((caught.value.problem, caught.value.fix))
        kept = unpack_state(load_state(tmp_path / "train.state"))
        assert kept is None or all(np.isfinite(x).all() for x in kept.arrays.values())
    ((problem, fix),) = found
    assert problem.startswith("train diverged in epoch ")
    assert fix.startswith("lower recipe.lr (or lr in tune.space") and "it was 100" in fix
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == []


def test_weights_that_are_not_finite_are_a_divergence_whatever_the_loss(packed: Path) -> None:
    trainer = Trainer(ProcessGroup(), make_job(packed))
    trainer.history.append(trainer.train_epoch())
    assert trainer.is_finite()
    trainer.flat.weights[3] = float("inf")
    assert not trainer.is_finite()


def test_a_line_an_epoch(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(packed, make_job(packed).spec, RECIPE, params(), tmp_path / "out", tmp_path / "scratch")
    line = capsys.readouterr().err.splitlines()[1]
    words = line.replace(",", "").split()
    assert words[:2] == ["train", "2/3"]
    assert words[3:5] == ["images/s", "loss"] and words[6] == "f1"
    assert words[-1] == "left" and "best" not in words  # the last epoch's weights are taken
    assert float(words[2]) > 0 and 0 <= float(words[7]) <= 1


HEAD, HEAD_BIAS = "5.0.conv.0.weight", "5.0.conv.0.bias"


def taken(packed: Path, tmp_path: Path, weights: Weights, **changes: object) -> Weights:
    """Return what the stage makes of initial weights, trained for no epoch."""
    write_weights(tmp_path / "given.safetensors", weights)
    given = params(weights=str(tmp_path / "given.safetensors"), **{"epochs": 0, **changes})
    train(packed, make_job(packed).spec, RECIPE, given, tmp_path / "out", tmp_path / "scratch")
    return read_weights(tmp_path / "out" / "weights.safetensors")


def test_initial_weights_are_taken_and_trained_on(packed: Path, tmp_path: Path) -> None:
    first = fit(ProcessGroup(), make_job(packed)).weights
    counted = {**first, "0.0.conv.1.num_batches_tracked": np.zeros((), np.int64)}  # as torch saves
    same = taken(packed, tmp_path, counted)
    assert {name: x.tobytes() for name, x in same.items()} == {
        name: x.tobytes() for name, x in first.items()
    }
    assert json.loads((tmp_path / "out" / "history.json").read_text()) == []
    tuned = taken(packed, tmp_path, first, epochs=1)
    fresh = replace(make_job(packed), epochs=1)
    assert tuned[HEAD].tobytes() != first[HEAD].tobytes()
    assert tuned[HEAD].tobytes() != fit(ProcessGroup(), fresh).weights[HEAD].tobytes()


@pytest.mark.parametrize("head", ["other classes", "none"])
def test_the_head_may_be_another_one(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    first = fit(ProcessGroup(), make_job(packed)).weights
    own = {
        HEAD: np.ones((10, 16), np.float32),
        "5.0.conv.0.bias": np.ones(10, np.float32),
    }
    given = {name: x for name, x in first.items() if name not in own}
    given |= own if head == "other classes" else {}
    found = taken(packed, tmp_path, given, epochs=1)
    assert found[HEAD].shape == first[HEAD].shape
    assert "its head is for other classes" in capsys.readouterr().err
    start = initial_weights(tmp_path / "given.safetensors", make_job(packed).spec, len(CLASSES), 0)
    assert start[HEAD].shape == first[HEAD].shape
    assert start["0.0.conv.0.weight"].tobytes() == first["0.0.conv.0.weight"].tobytes()
    with pytest.raises(NetworkError) as caught:  # nothing would train the head
        taken(packed, tmp_path, given)
    assert caught.value.problem == (
        f"{tmp_path / 'given.safetensors'}: its head is for other classes, and train.epochs: 0 "
        "trains none"
    )
    assert caught.value.fix == ("set train.epochs above 0, or bring weights of these classes")


def test_initial_weights_of_another_network_name_its_layers(packed: Path, tmp_path: Path) -> None:
    first = fit(ProcessGroup(), make_job(packed)).weights
    other = dict(first)
    other["9.extra"] = other.pop("0.0.conv.0.weight")
    other["0.0.conv.1.weight"] = np.ones(3, np.float32)
    other["0.0.conv.1.bias"] = np.full(8, np.nan, np.float32)
    with pytest.raises(NetworkError) as caught:
        taken(packed, tmp_path, other)
    assert caught.value.problem.split(": ", 1)[1] == (
        "1 missing (0.0.conv.0.weight); 1 unknown (9.extra); "
        "1 of another shape (0.0.conv.1.weight: (3,) for (8,)); 1 not finite (0.0.conv.1.bias)"
    )
    assert caught.value.fix.startswith("set train.weights to a file")
    with pytest.raises(NetworkError) as caught:
        taken(packed, tmp_path, {HEAD: first[HEAD], HEAD_BIAS: first[HEAD_BIAS]})
    assert "missing (0.0.conv.0.weight, 0.0.conv.1.bias, 0.0.conv.1.running_mean, ...)" in str(
        caught.value
    )
    assert not (tmp_path / "out").exists()


def test_initial_weights_that_cannot_be_read(packed: Path, tmp_path: Path) -> None:
    for name in ("none.safetensors", "."):
        given = params(weights=str(tmp_path / name))
        with pytest.raises(NetworkError) as caught:
            train(packed, make_job(packed).spec, RECIPE, given, tmp_path / "out", tmp_path)
        assert str(tmp_path) in caught.value.problem and "train.weights" in caught.value.fix


def test_weights_that_are_not_there_or_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(NetworkError, match="does not exist"):
        read_weights(path)
    path.write_bytes(b"{}")
    with pytest.raises(NetworkError, match="is not a file of float32 safetensors"):
        read_weights(path)


def test_weights_of_another_network(packed: Path, tmp_path: Path) -> None:
    spec, path = make_job(packed).spec, tmp_path / "weights.safetensors"
    train(packed, spec, RECIPE, params(epochs=1), tmp_path, tmp_path / "scratch")
    weights = read_weights(path)
    write_weights(tmp_path / "again", dict(reversed(weights.items())))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert path.read_bytes()[8:].startswith(b'{"0.0.conv.0.weight"')  # no metadata, no dates
    with pytest.raises(NetworkError, match=r"0\.0\.conv\.0\.weight is \(16, 3, 3, 3\) in"):
        load_weights(build(replace(spec, width=2.0), len(CLASSES)), weights)
    del weights["0.0.conv.0.weight"]
    with pytest.raises(NetworkError, match=r"differ: 0\.0\.conv\.0\.weight is in one only"):
        load_weights(build(spec, len(CLASSES)), weights)
