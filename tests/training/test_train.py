"""The train stage: what it writes, with and without a teacher."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_job import CLASSES, LOSS, RECIPE, make_job

from weighin.errors import NetworkError, ParamsError
from weighin.network.build import build
from weighin.params import Params, Train, load
from weighin.training.train import train
from weighin.training.weights import load_weights, read_weights, write_weights

PARAMS = load(Path(__file__).parents[2] / "params.yaml")
LEARNING = replace(RECIPE, loss=replace(LOSS, distillation=1.0))


def params(**changes: object) -> Params:
    plain = replace(PARAMS.train, epochs=3, workers=1, all_data=False, teacher=0.0)
    section: Train = replace(plain, teacher_epochs=2, **changes)
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


def test_a_teacher_is_an_output_and_twice_as_wide(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_job(packed).spec
    train(packed, spec, LEARNING, params(teacher=2.0), tmp_path / "out", tmp_path / "scratch")
    wide = read_weights(tmp_path / "out" / "teacher.safetensors")
    load_weights(build(replace(spec, width=2.0), len(CLASSES)), wide)
    lines = [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["teacher 1/2", "teacher 2/2", "train 1/3", "train 2/3", "train 3/3"]
    train(packed, spec, LEARNING, params(), tmp_path / "alone", tmp_path / "other")
    names = [tmp_path / where / "weights.safetensors" for where in ("out", "alone")]
    assert names[0].read_bytes() != names[1].read_bytes()


def test_a_teacher_nobody_listens_to_is_an_error(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        train(packed, make_job(packed).spec, RECIPE, params(teacher=2.0), tmp_path, tmp_path)
    assert str(caught.value) == (
        "train.teacher is 2, but nothing is learned from it\n"
        "  to fix: set recipe.loss.distillation above 0 (1 is usual), or train.teacher to 0"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_diverges_says_so(packed: Path, tmp_path: Path) -> None:
    wild = replace(RECIPE, lr=100.0, weight_decay=10.0)
    for _ in range(2):  # the second time from the state that the first one left
        with pytest.raises(ParamsError, match=r"train diverged in epoch \d: its loss is (nan|inf)"):
            train(packed, make_job(packed).spec, wild, params(epochs=9), tmp_path / "o", tmp_path)
    assert not (tmp_path / "o" / "weights.safetensors").exists()


def test_a_line_an_epoch(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(packed, make_job(packed).spec, RECIPE, params(), tmp_path / "out", tmp_path / "scratch")
    line = capsys.readouterr().err.splitlines()[1]
    words = line.replace(",", "").split()
    assert words[:2] == ["train", "2/3"]
    assert words[3:5] == ["images/s", "loss"] and words[6] == "f1" and words[8] == "best"
    assert words[-1] == "left"
    assert float(words[2]) > 0 and float(words[9]) >= float(words[7])


def test_weights_that_are_not_there_or_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(NetworkError, match="does not exist"):
        read_weights(path)
    path.write_bytes(b"{}")
    with pytest.raises(NetworkError, match="is not a safetensors file"):
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
