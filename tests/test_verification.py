"""A rebuild is compared with the record, and each way to fall apart is told in its own words."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from weighin.errors import DataError, MachineError, MismatchError, ParamsError, WeighinError
from weighin.files import read_yaml, write_json
from weighin.report.provenance import MACHINE_RECORD, record_machine
from weighin.verification import _Comparison, verify

pytestmark = pytest.mark.pipeline
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
times = int(pathlib.Path("params.yaml").read_text().split()[1])
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built") / "project"
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


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A built and committed project of one's own."""
    return shutil.copytree(built, tmp_path / "project", symlinks=True)


def failure(project: Path, kind: type[WeighinError] = MismatchError, **options) -> list[str]:
    """The lines of what a check says; an error of another kind would not pass for it."""
    with pytest.raises(kind) as caught:
        verify(project, **options).check()
    assert type(caught.value) is kind
    return caught.value.problem.splitlines()


@pytest.fixture
def golden(monkeypatch):
    """Make this machine one that computes these golden values otherwise."""

    def set_to(names):
        monkeypatch.setattr("weighin.verification._Comparison._golden", lambda _: names)

    set_to([])
    return set_to


def test_an_honest_project_is_the_same(project):
    proof = verify(project)
    proof.check()
    assert (proof.verdict, proof.reasons, proof.difference) == ("same", (), None)
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
    assert failure(project) == [
        "work/count.txt was edited after count made it, or is an experiment's"
    ]
    verify(project, "upper").check()  # it is neither an input nor an output of that stage


def forge(project, path="work/count.txt", text="1000", stage="count"):
    (project / path).write_text(text)
    run(project, "dvc", "commit", "--force", "--quiet", stage)
    commit(project)


def test_a_forged_record(project, golden):
    forge(project)
    first, record, difference = failure(project)
    assert first == "1 of 2 outputs differ from dvc.lock"
    assert record.startswith("the record is wrong: the golden values agree on this machine (")
    assert record.endswith("two rebuilds of the same inputs give the same other work/count.txt")
    assert difference == (
        'first difference: stage count, work/count.txt: line 1: "1000" recorded, "34" rebuilt'
    )


def test_without_golden_values_nothing_is_accused(project, golden):
    forge(project)
    golden(None)
    said = failure(project)[1]
    assert "there are no golden values that tell whether this machine or the record" in said
    assert not said.startswith("the record is wrong")


def test_a_machine_that_computes_otherwise_accuses_nobody(project, golden):
    forge(project)
    golden(["a convolution"])
    assert failure(project, MachineError)[:2] == [
        "1 of 2 outputs differ from dvc.lock, but cannot be compared here",
        "a golden value is computed otherwise here: a convolution",
    ]


def test_the_golden_values_are_those_of_this_code(project):
    """The real ones, or None where there are none yet, asked of a process of its own."""
    comparison = _Comparison(project, project, {}, [], None)
    assert comparison._golden() in ([], None)


def test_a_machine_without_the_instructions_accuses_nobody(project, golden, monkeypatch):
    forge(project)
    monkeypatch.setattr("weighin.verification.unportable", lambda: "the processor lacks avx2")
    said = failure(project, MachineError)[1]
    assert said.endswith("computes other bytes than the promised ones: the processor lacks avx2")


RANDOM = """
import pathlib, uuid
pathlib.Path("work/count.txt").write_text(str(uuid.uuid4()))
"""


def test_two_rebuilds_that_differ_accuse_nobody(project, golden):
    (project / "stages/count.py").write_text(RANDOM)
    run(project, "dvc", "repro", "--quiet")
    commit(project)
    assert failure(project, MachineError)[1] == (
        "two rebuilds of work/count.txt on this machine differ from each other"
    )


def test_a_record_of_other_data(project, golden):
    (project / "data/words.txt").write_text("four words are here\n")
    run(project, "dvc", "add", "--quiet", "data")
    commit(project)
    assert failure(project)[:2] == [
        "2 of 2 outputs differ from dvc.lock",
        "dvc.lock records another data than this commit holds",
    ]


def test_data_that_are_not_those_recorded(project, golden):
    (project / "data/words.txt").write_text("four words are here\n")
    assert failure(project, MachineError)[:2] == [
        "2 of 2 outputs differ from dvc.lock, but cannot be compared here",
        "data here is not the one that data.dvc names",
    ]


def test_an_edited_input_of_one_stage(project, golden):
    (project / "work/upper.txt").write_text("SHORT")
    assert failure(project, MachineError, stage="count")[1] == (
        "work/upper.txt here is not the one that upper made"
    )


PARAMETERS = "dvc.lock records other parameters of upper than this commit holds"


def test_a_record_of_other_parameters(project, golden):
    (project / "params.yaml").write_text("times: 3\n")
    commit(project)
    assert failure(project)[1] == PARAMETERS


def test_what_only_moved_passes(project):
    """Code and parameters that changed and no byte: a check that finds nothing passes."""
    (project / "stages/count.py").write_text("# a remark\n" + COUNT)
    (project / "params.yaml").write_text("times: 2\nmore: 1\n")
    yaml = (project / "dvc.yaml").read_text().replace("params: [times]", "params: [times, more]")
    (project / "dvc.yaml").write_text(yaml)
    commit(project)
    for stage in (None, "upper"):
        proof = verify(project, stage)
        proof.check()
        assert PARAMETERS in proof.notes
    assert (
        "dvc.lock records another stages/count.py than this commit holds" in verify(project).notes
    )


def other_libraries(project):
    (project / "requirements.lock").write_text("click==8.0.0\nnot-there==1.0\n")
    commit(project)


def test_another_library_is_no_difference(project):
    other_libraries(project)
    proof = verify(project)
    proof.check()
    assert proof.notes == (
        "another library: click 8.5.1 is installed, requirements.lock says 8.0.0",
        "another library: not-there is not installed, requirements.lock says 1.0",
    )
    assert "note: another library: click 8.5.1" in "\n".join(proof.table())


def test_another_library_explains_a_difference(project, golden):
    other_libraries(project)
    forge(project)
    said = failure(project, MachineError)
    assert said[1] == "another library: click 8.5.1 is installed, requirements.lock says 8.0.0"
    assert not [line for line in said if "not-there" in line]  # what is not there computed nothing


def test_a_package_that_is_not_installed_explains_nothing(project, golden):
    (project / "requirements.lock").write_text("click==8.5.1\nnot-there==1.0\n")
    commit(project)
    verify(project).check()
    forge(project)
    assert failure(project)[1].startswith("the record is wrong")


def test_the_machine_that_built_explains_a_difference(project, golden):
    forge(project)
    (project / "submission").mkdir()
    (project / "submission/provenance.json").write_text("{}")
    record_machine(project / "submission/provenance.json")
    assert failure(project)[1].startswith("the record is wrong")
    record = project / MACHINE_RECORD
    facts = json.loads(record.read_text())
    facts["machine"] |= {"unportable": "no AVX2", "processor": "An Old One"}
    facts["machine"]["libraries"]["click"] = "7.0"
    record.write_text(json.dumps(facts))
    assert failure(project, MachineError)[1:3] == [
        "the record was made on An Old One: no AVX2",
        "another library: click 8.5.1 is installed, the record was made by 7.0",
    ]


def test_the_first_difference_is_that_of_the_first_stage(project, golden):
    """The order is that of dvc.yaml, whatever that of dvc.lock is."""
    forge(project, "work/upper.txt", "THREE WORDS HERE\nTHREE WORDS THERE\n", "upper")
    run(project, "dvc", "repro", "--quiet", "count")
    lock = read_yaml(project / "dvc.lock")
    lock["stages"] = dict(reversed(lock["stages"].items()))
    (project / "dvc.lock").write_text(json.dumps(lock))
    commit(project)
    assert failure(project)[-1] == (
        'first difference: stage upper, work/upper.txt: line 2: "THREE WORDS THERE" recorded, '
        '"THREE WORDS HERE" rebuilt'
    )


def test_the_recorded_output_comes_from_the_remote(project, golden, tmp_path):
    run(project, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    forge(project)
    run(project, "dvc", "push", "--quiet")
    shutil.rmtree(project / ".dvc/cache")
    assert failure(project)[-1].endswith('line 1: "1000" recorded, "34" rebuilt')
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(tmp_path / "store")
    said = failure(project)[-1]
    assert said.endswith("work/count.txt (the recorded one is not in DVC's cache or remote)")


GPU = {"gpu": "NVIDIA A100", "driver": "535", "cuda": "13.0", "cudnn": 9, "torch": "2.14.1"}


@pytest.fixture
def built_on_a_gpu(project: Path) -> Path:
    definition = {"internalParameters": {"gpu": {"upper": GPU}}}
    statement = {"predicate": {"buildDefinition": definition}}
    write_json(project / "submission/provenance.json", statement)
    return project


def test_what_a_gpu_built_is_graded_elsewhere(built_on_a_gpu, monkeypatch):
    monkeypatch.setattr("weighin.training.device.here", dict)
    words = "NVIDIA A100 (driver 535, cuda 13.0, cudnn 9, torch 2.14.1)"
    expected = f"cannot be compared here: built on {words}, this is a machine without a GPU"
    with pytest.raises(MachineError) as caught:
        verify(built_on_a_gpu).check()
    assert caught.value.problem == expected
    assert "grade it here instead: python -m weighin.grading submission/model.onnx" in (
        caught.value.fix
    )
    assert verify(built_on_a_gpu, "count").verdict == "same"  # no GPU computed this stage
    monkeypatch.setattr("weighin.training.device.here", lambda: GPU | {"driver": "550"})
    assert verify(built_on_a_gpu).verdict == "cannot be compared here"


def test_on_the_same_gpu_it_is_rebuilt(built_on_a_gpu, monkeypatch):
    monkeypatch.setattr("weighin.training.device.here", lambda: dict(GPU))
    assert verify(built_on_a_gpu).verdict == "same"


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
