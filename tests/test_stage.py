"""What surrounds a stage: declared parameters alone, scratch space by content, plain errors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from weighin import files, stage
from weighin.errors import DataError, ParamsError
from weighin.params import load

ROOT = Path(__file__).parents[1]
PIPELINE = """
stages:
  toy:
    cmd: python stages/toy.py
    deps: [input.txt]
    params: [seed, train.epochs]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "input.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scratch_of(project: Path) -> Path:
    seen: list[Path] = []
    with pytest.raises(DataError):
        stage.run("toy", lambda s: seen.append(s.scratch) or _fail())
    return seen[0]


def _fail() -> None:
    raise DataError("it broke", "fix it")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_scratch_outlives_a_failure_and_goes_when_the_stage_is_done(project):
    scratch = scratch_of(project)
    (scratch / "state").write_text("half")
    seen = []
    stage.run("toy", lambda s: seen.append((s.scratch / "state").read_text()))
    assert seen == ["half"]
    assert not scratch.exists()


def test_scratch_belongs_to_contents_and_declared_values(project):
    first = scratch_of(project)
    assert scratch_of(project) == first
    (project / "input.txt").write_text("two")
    second = scratch_of(project)
    edit(project / "params.yaml", "seed: 0", "seed: 1")
    third = scratch_of(project)
    assert len({first, second, third}) == 3


def test_a_stage_that_needs_no_scratch_reads_none_of_its_inputs(project, monkeypatch):
    hashed: list[Path] = []
    monkeypatch.setattr(files, "sha256_tree", lambda path: hashed.append(path) or "0" * 64)
    stage.run("toy", lambda s: None)
    assert not hashed
    stage.run("toy", lambda s: s.scratch)
    assert hashed == [Path("input.txt")]


def test_values_that_are_not_declared_do_not_move_the_scratch(project):
    first = scratch_of(project)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("workers: auto", "workers: 3"))
    assert load(project / "params.yaml").train.workers == 3
    assert scratch_of(project) == first


def test_a_section_that_is_not_declared_cannot_be_read(project):
    def body(s: stage.Stage) -> None:
        assert s.params.train.epochs > 0
        _ = s.params.contest.floor_f1

    with pytest.raises(AttributeError) as caught:
        stage.run("toy", body)
    assert str(caught.value) == (
        "the stage toy reads contest.floor_f1; name contest among its params in dvc.yaml"
    )


def test_a_stage_that_is_not_declared(project):
    with pytest.raises(ParamsError, match=r"dvc\.yaml has no stage other"):
        stage.run("other", lambda s: None)


def test_a_stage_runs_the_code_under_the_working_folder(project):
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "stages").mkdir()
    (project / "stages/toy.py").write_text(
        "import os, weighin\nfrom weighin.stage import main\n"
        "main(lambda stage: print(weighin.__file__, os.environ['PYTHONPATH']))\n"
    )
    command = [sys.executable, "stages/toy.py"]
    other = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=project, env=other, capture_output=True, text=True)
    own = project / "src"
    assert done.stdout.split() == [str(own / "weighin/__init__.py"), f"{own}:{ROOT / 'src'}"]
    shutil.rmtree(own)  # negative control: without code of its own, what is on the path runs
    done = subprocess.run(command, cwd=project, env=other, capture_output=True, text=True)
    assert done.stdout.split()[0] == str(ROOT / "src/weighin/__init__.py")


def test_a_stage_that_cannot_run_the_projects_own_code_says_so(project):
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "stages").mkdir()
    (project / "stages/toy.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "from weighin.stage import main\nmain(lambda stage: print('worked'))\n"
    )
    command = [sys.executable, "-E", "stages/toy.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"does not import weighin from {project / 'src'}" in done.stderr
    assert "without the options -E" in done.stderr


def test_a_machine_of_another_kind_stops_before_any_work(project):
    (project / "stages").mkdir()
    (project / "stages/toy.py").write_text(
        "from weighin.stage import main\nmain(lambda stage: print('worked'))\n"
    )
    setarch = shutil.which("setarch")
    if setarch is None:
        pytest.skip("no setarch here")
    command = [setarch, "i686", sys.executable, "stages/toy.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (14, "")
    assert "linux on i686" in done.stderr
    assert "WEIGHIN_ALLOW_UNPORTABLE=1" in done.stderr
    allowed = os.environ | {"WEIGHIN_ALLOW_UNPORTABLE": "1"}
    done = subprocess.run(command, cwd=project, env=allowed, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "worked\n")


def test_a_problem_is_two_lines_and_an_exit_code(project, capsys):
    assert stage.exit_code(_fail) == 5
    assert capsys.readouterr().err == "error: it broke\n  to fix: fix it\n"


def test_a_file_that_cannot_be_read_is_named(project, capsys):
    assert stage.exit_code(lambda: (project / "none.jpg").read_bytes() and None) == 5
    assert f"error: {project / 'none.jpg'}: No such file" in capsys.readouterr().err


def test_a_bug_is_a_traceback(project):
    with pytest.raises(ZeroDivisionError):
        stage.exit_code(lambda: 1 // 0)


def test_an_interrupt_is_one_line(project, capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert stage.exit_code(interrupted) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_a_stage_file_stops_at_a_wrong_value_before_any_work(project):
    edit(project / "params.yaml", "seed: 0", "seed: banana")
    (project / "stages").mkdir()
    (project / "stages/toy.py").write_text(
        "from weighin.stage import main\nmain(lambda stage: print('worked'))\n"
    )
    done = subprocess.run(
        [sys.executable, "stages/toy.py"], cwd=project, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        'error: params.yaml: seed is "banana"; it must be a whole number 0 to 2147483647\n'
        "  to fix: edit params.yaml, or pass -S name=value to `dvc exp run`; `weighin reset` "
        "brings the committed one back\n"
    )
