"""The files that parameters name: what is recorded of them, and what is said of one that lacks."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from weighin.errors import ParamsError
from weighin.files import read_json, sha256, sha256_file, sha256_tree
from weighin.network.spec import shipped
from weighin.params import Params, load
from weighin.search.space import shipped_spaces
from weighin.stage import SHIPPED, named_files, record_files

ROOT = Path(__file__).parents[1]
OUT = Path("work/inputs")
FILES = ["contest.json", "search.json", "train.json"]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return load(ROOT / "params.yaml")


def searching(params: Params, **changes: object) -> Params:
    return replace(params, search=replace(params.search, **changes))


def test_what_comes_with_the_package_is_known_by_name(params: Params) -> None:
    record_files(params, OUT)
    assert sorted(path.name for path in OUT.iterdir()) == FILES
    assert read_json(OUT / "contest.json") == {"score": {"name": "waste"}}
    assert read_json(OUT / "search.json") == {"space": {"name": "small"}}
    for name in shipped_spaces():
        assert named_files(searching(params, space=name))[1].path is None
    assert shipped("seed").parent.as_posix().endswith(SHIPPED["search.network"])
    assert named_files(searching(params, enabled=False, network="seed"))[1].path is None


def test_a_file_of_ones_own_is_copied_and_hashed(params: Params) -> None:
    Path("net.yaml").write_text("one")
    own = searching(params, enabled=False, network="net.yaml")
    record_files(own, OUT)
    facts = {"name": "net.yaml", "sha256": sha256(b"one")}
    assert read_json(OUT / "search.json") == {"network": facts}
    assert (OUT / "search.network.yaml").read_text() == "one"
    before = sha256_tree(OUT)
    record_files(own, OUT)
    assert sha256_tree(OUT) == before
    Path("net.yaml").write_text("two")
    record_files(own, OUT)
    assert sha256_tree(OUT) != before
    record_files(params, OUT)
    assert not (OUT / "search.network.yaml").exists()


def test_a_score_of_ones_own_is_recorded(params: Params) -> None:
    own = replace(params, contest=replace(params.contest, score="my_score.py"))
    with pytest.raises(ParamsError, match=r"contest\.score is my_score\.py"):
        record_files(own, OUT)
    Path("my_score.py").write_text("def score(contest, metrics): return 1.0\n")
    record_files(own, OUT)
    assert read_json(OUT / "contest.json")["score"]["sha256"] == sha256_file(Path("my_score.py"))
    assert (OUT / "contest.score.py").read_bytes() == Path("my_score.py").read_bytes()


def test_a_file_that_is_not_in_use_changes_nothing(params: Params) -> None:
    record_files(searching(params, network="absent.yaml"), OUT)
    assert read_json(OUT / "search.json") == {"space": {"name": "small"}}
    record_files(searching(params, enabled=False, space="absent.yaml"), OUT)
    assert read_json(OUT / "search.json") == {}


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"enabled": False, "network": "net.yaml"}, "search.network is net.yaml"),
        ({"space": "spaces/mine.yaml"}, "search.space is spaces/mine.yaml"),
        ({"space": "smal"}, "search.space is smal"),
    ],
)
def test_a_file_that_is_not_there(params: Params, changes: dict[str, object], culprit: str) -> None:
    with pytest.raises(ParamsError) as caught:
        record_files(searching(params, **changes), OUT)
    assert culprit in caught.value.problem
    assert f"git add {culprit.split()[-1]}" in caught.value.fix
    assert not OUT.exists()


def test_a_file_that_git_does_not_track_is_told(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("net.yaml").write_text("one")
    own = searching(params, enabled=False, network="net.yaml")
    record_files(own, OUT)  # no Git here: nothing to say
    assert capsys.readouterr().err == ""
    subprocess.run(["git", "init", "-q"], check=True, env=dict(os.environ))
    record_files(own, OUT)
    assert "git add net.yaml" in capsys.readouterr().err
    subprocess.run(["git", "add", "net.yaml"], check=True)
    record_files(own, OUT)
    assert capsys.readouterr().err == ""


def test_initial_weights_are_tracked_by_dvc(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    own = replace(params, train=replace(params.train, weights="given.safetensors"))
    with pytest.raises(ParamsError) as caught:
        record_files(own, OUT)
    assert caught.value.problem == "train.weights is given.safetensors: no file"
    assert "dvc add given.safetensors" in caught.value.fix
    Path("given.safetensors").write_bytes(b"one")
    subprocess.run(["git", "init", "-q"], check=True)
    record_files(own, OUT)
    assert "`dvc add given.safetensors`" in capsys.readouterr().err
    facts = {"name": "given.safetensors", "sha256": sha256(b"one")}
    assert read_json(OUT / "train.json") == {"weights": facts}
    assert (OUT / "train.weights.safetensors").read_bytes() == b"one"
    Path("given.safetensors.dvc").write_text("")
    record_files(own, OUT)
    assert capsys.readouterr().err == ""
