"""A rebuild is compared with the record, and each way to fall apart is told in its own words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weighin.errors import DataError, MismatchError, ParamsError
from weighin.verification import verify

PIPELINE = """
stages:
  upper:
    cmd: python stages/upper.py
    deps: [data, stages/upper.py]
    params: [times]
    outs: [work/upper.txt]
  count:
    cmd: python stages/count.py
    deps: [work/upper.txt, stages/count.py]
    outs: [work/count.txt]
"""
UPPER = """
import pathlib
times = int(pathlib.Path("params.yaml").read_text().split(":")[1])
pathlib.Path("work").mkdir(exist_ok=True)
text = pathlib.Path("data/words.txt").read_text().upper() * times
pathlib.Path("work/upper.txt").write_text(text)
"""
COUNT = """
import pathlib
pathlib.Path("work/count.txt").write_text(str(len(pathlib.Path("work/upper.txt").read_text())))
"""
IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "test"), ("EMAIL", "test@example.org"))
}


def run(folder: Path, *command: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, **IDENTITY, "PATH": path})


def commit(folder: Path) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "--quiet", "-m", "change")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in (
        ("dvc.yaml", PIPELINE),
        ("params.yaml", "times: 2\n"),
        ("stages/upper.py", UPPER),
        ("stages/count.py", COUNT),
        ("data/words.txt", "three words here\n"),
        (".gitignore", "/work/\n/data/\n"),
        ("requirements.lock", "click==8.5.1\n"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    run(root, "git", "init", "--quiet")
    run(root, "dvc", "init", "--quiet")
    run(root, "dvc", "add", "--quiet", "data")
    run(root, "dvc", "repro", "--quiet")
    commit(root)
    return root


def reasons(project: Path) -> list[str]:
    proof = verify(project)
    with pytest.raises(MismatchError) as caught:
        proof.check()
    return caught.value.problem.splitlines()


def test_an_honest_project_is_the_same(project):
    proof = verify(project)
    proof.check()
    lines = proof.table()
    assert lines[0].split() == ["stage", "output", "recorded", "recomputed"]
    assert [line.split()[:2] + line.split()[-1:] for line in lines[1:]] == [
        ["upper", "work/upper.txt", "same"],
        ["count", "work/count.txt", "same"],
    ]


def test_one_stage_alone(project):
    proof = verify(project, "count")
    proof.check()
    assert [row.path for row in proof.rows] == ["work/count.txt"]


def test_an_edited_output(project):
    (project / "work/count.txt").write_text("1000")
    assert reasons(project) == [
        "0 of 2 outputs are not what dvc.lock records",
        "an output was edited after count made it: work/count.txt",
    ]


def test_a_forged_record(project):
    (project / "work/count.txt").write_text("1000")
    run(project, "dvc", "commit", "--force", "--quiet", "count")
    commit(project)
    assert reasons(project) == [
        "1 of 2 outputs are not what dvc.lock records",
        "the record itself is wrong: the same inputs and libraries give another work/count.txt",
    ]


def test_a_changed_input(project):
    (project / "data/words.txt").write_text("four words are here\n")
    run(project, "dvc", "add", "--quiet", "data")
    commit(project)
    assert reasons(project) == [
        "2 of 2 outputs are not what dvc.lock records",
        "an input has changed since it was recorded: data",
    ]


def test_changed_parameters(project):
    (project / "params.yaml").write_text("times: 3\n")
    commit(project)
    assert reasons(project)[1:] == ["the parameters of upper have changed since they were recorded"]


def test_another_library(project):
    (project / "requirements.lock").write_text("click==8.0.0\nnot-there==1.0\n")
    commit(project)
    assert reasons(project) == [
        "0 of 2 outputs are not what dvc.lock records",
        "another library: click 8.5.1 is installed, requirements.lock says 8.0.0",
        "another library: not-there is not installed, requirements.lock says 1.0",
    ]


def test_what_is_not_committed_does_not_help(project):
    (project / "stages/count.py").write_text("raise SystemExit(1)\n")
    proof = verify(project)
    assert all(row.same for row in proof.rows)


def test_nothing_committed(project):
    run(project, "git", "rm", "--quiet", "--cached", "dvc.lock")
    run(project, "git", "commit", "--quiet", "-m", "gone")
    with pytest.raises(DataError, match=r"the last commit has no dvc\.lock"):
        verify(project)


def test_an_unknown_stage(project):
    with pytest.raises(ParamsError, match=r"dvc\.lock has no stage other"):
        verify(project, "other")
