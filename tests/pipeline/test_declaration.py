"""dvc.yaml says what is true: deps are imports, params are read, nothing escapes the cache."""

import dataclasses
import tomllib

import pytest

from tests.pipeline.closure import ROOT, closure
from weighin.files import read_yaml
from weighin.params import Params
from weighin.validation import parameters

STAGES = [
    *(
        "inputs",
        "prepare",
        "search",
        "tune",
        "train",
        "decompose",
        "finetune",
        "quantize",
        "infer",
        "report",
    )
]
SPEED_ONLY = {f"{section}.{name}" for section in STAGES for name in ("workers", "cluster")}
PIPELINE = read_yaml(ROOT / "dvc.yaml")["stages"]


def test_the_stages_and_their_order():
    assert list(PIPELINE) == STAGES
    assert sorted(path.stem for path in (ROOT / "stages").glob("*.py")) == sorted(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_what_the_stage_imports(name):
    listed = {d for d in PIPELINE[name]["deps"] if d.split("/")[0] in ("src", "stages")}
    needed = closure(ROOT / f"stages/{name}.py") | {f"stages/{name}.py"}
    covers = {d: {f for f in needed if f == d or f.startswith(f"{d}/")} for d in listed}
    assert needed - set().union(*covers.values()) == set(), "imported, but no dep"
    assert [d for d, files in covers.items() if not files] == [], "a dep, but not imported"


def test_the_closure_would_see_a_missing_dep():
    needed = closure(ROOT / "stages/train.py")
    assert {"src/weighin/training/trainer.py", "src/weighin/network/blocks.py"} <= needed
    assert not any(name.startswith("src/weighin/report/") for name in needed)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_says_what_it_does_and_may_be_cached(name):
    stage = PIPELINE[name]
    assert stage["desc"]
    assert stage["cmd"] == f"python stages/{name}.py"
    assert stage.keys() & {"always_changed", "frozen"} == (
        {"always_changed"} if name == "inputs" else set()
    )
    assert "requirements.lock" in stage["deps"]
    assert all(isinstance(out, str) for out in stage["outs"]), "an out with options"


def test_every_parameter_has_a_reader_but_for_those_of_speed():
    named = {key for stage in PIPELINE.values() for key in stage.get("params", ())}
    every = set(parameters(Params))
    read = {name for name in every if any(name == k or name.startswith(f"{k}.") for k in named)}
    assert every - read == SPEED_ONLY & every
    assert {f"{s}.{n}" for s in ("search", "tune") for n in ("workers", "cluster")} < SPEED_ONLY
    sections = {field.name for field in dataclasses.fields(Params)}
    assert {key.split(".")[0] for key in named} == sections


def test_outputs_belong_to_one_stage_each():
    outs = [out for stage in PIPELINE.values() for out in stage["outs"]]
    assert len(outs) == len(set(outs))


def test_stage_files_are_thin():
    for path in (ROOT / "stages").glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path.name


def test_versions_are_pinned_alike_in_every_lock():
    locked = [_locked(ROOT / name) for name in ("requirements.lock", "requirements-dev.lock")]
    grader = _locked(ROOT / "docker/grader.lock")
    assert locked[0].items() <= locked[1].items()
    assert grader.items() <= locked[0].items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    exact = dict(d.split("==") for d in project["dependencies"] if "==" in d and "[" not in d)
    names = {name.lower().replace("_", "-").replace(".", "-"): v for name, v in exact.items()}
    assert names.items() <= locked[0].items()


def _locked(path):
    lines = (line for line in path.read_text().splitlines() if "==" in line and line[0] != " ")
    return dict(line.split(" ")[0].split("==") for line in lines)
