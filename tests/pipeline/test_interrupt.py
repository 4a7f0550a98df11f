"""Ctrl-C, as a terminal sends it to all processes at once: a quick, quiet end, and then go on."""

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.project import TINY, commit, copied, environment, run, set_params
from weighin.files import sha256_tree

pytestmark = [pytest.mark.pipeline, pytest.mark.serial]
WEIGHIN = (sys.executable, "-m", "weighin")
TRAIN = (sys.executable, "stages/train.py")
WAIT, QUICK = 120, 10  # seconds; an end takes under 2 where nothing else runs
SAID = "interrupted; run the same command again to go on\n"
TORCHS = f"torchinductor_{getpass.getuser()}"  # what it leaves after any run
Session = "subprocess.Popen[str]"


def interrupted(
    project: Path, command: tuple[str, ...], begun: Callable[[Session], object], **extra: str
) -> tuple[int, str]:
    """Return the exit code and standard error of a command interrupted once it has `begun`."""
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment(project, WEIGHIN_WORKERS="2", **extra),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        _await(lambda: begun(started))
        assert started.poll() is None, "it ended before it could be interrupted"
        os.killpg(started.pid, signal.SIGINT)
        start = time.perf_counter()
        _, said = started.communicate(timeout=WAIT)
        assert time.perf_counter() - start < QUICK
    _await(lambda: not _members(started.pid))
    return started.returncode, said


def _await(condition: Callable[[], object]) -> None:
    for _ in range(WAIT * 50):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it was waited for in vain")


def _members(session: int) -> list[str]:
    """Return the processes that are left of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = path.read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            found.append(path.parent.name)
    return found


def trained(started: Session) -> bool:
    """Wait for the first epoch's line."""
    while not (line := started.stderr.readline()).startswith("train 1/"):
        assert line, "no epoch was trained"
    return True


def many(source: Path, folder: Path, count: int) -> Path:
    """Return a new folder that holds one file so many times."""
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(source, folder / f"{number:05d}.jpg")
    return folder


def test_a_stage_of_two_workers(built, tmp_path):
    project = copied(built, tmp_path)
    (project / "work/train/weights.safetensors").unlink()
    assert interrupted(project, TRAIN, trained) == (130, SAID)
    assert not (project / "work/train/weights.safetensors").exists()
    again = run(project, *TRAIN, WEIGHIN_WORKERS="2")
    assert not again.stderr.startswith("train 1/"), "it began again from the start"
    assert sha256_tree(project / "work/train") == sha256_tree(built / "work/train")


@pytest.mark.parametrize("seconds", [0.6, 1.5, 2.5, 4])
def test_a_stage_that_is_still_loading(seconds, built, tmp_path):
    """Torch, the workers' own torch: nothing of it shows."""
    project, scratch = copied(built, tmp_path), tmp_path / "temporary"
    # a study that was not done before, so that it takes longer than this test waits
    set_params(project, {**TINY, "search.trials": 8, "search.epochs": 100})
    scratch.mkdir()
    start = time.perf_counter()
    command = (sys.executable, "stages/search.py")
    code, said = interrupted(
        project, command, lambda _: time.perf_counter() - start > seconds, TMPDIR=str(scratch)
    )
    assert code == 130
    assert said.endswith(SAID)
    assert "Traceback" not in said
    assert {path.name for path in scratch.iterdir()} <= {TORCHS}


@pytest.mark.parametrize(("shell", "status"), [("bash", 130), ("dash", -2)])
def test_dvc_repro(shell, status, built, tmp_path):
    """DVC runs a stage in the user's shell; dash dies of the interrupt before its stage ends."""
    if (found := shutil.which(shell)) is None:
        pytest.skip(f"no {shell}")
    project = copied(built, tmp_path)
    command = ("dvc", "repro", "--force", "--no-run-cache", "--single-item", "train")
    code, said = interrupted(project, command, trained, SHELL=found)
    assert code == 255  # DVC's own
    failed = "ERROR: failed to reproduce 'train': failed to run: python stages/train.py"
    assert sorted(said.splitlines()) == [f"{failed}, exited with {status}", SAID.strip()]
    assert said.startswith(SAID) or shell == "dash"
    assert (project / "dvc.lock").read_bytes() == (built / "dvc.lock").read_bytes()
    again = run(project, *command, WEIGHIN_WORKERS="2")
    assert not again.stderr.startswith("train 1/"), "it began again from the start"
    assert (project / "dvc.lock").read_bytes() == (built / "dvc.lock").read_bytes()


def test_verify(built, tmp_path):
    project, scratch = copied(built, tmp_path), tmp_path / "temporary"
    scratch.mkdir()
    commit(project)
    command = (*WEIGHIN, "verify", "--stage", "train")
    code, said = interrupted(project, command, trained, TMPDIR=str(scratch))
    assert code == 130
    assert SAID in said
    assert "Traceback" not in said
    assert {path.name for path in scratch.iterdir()} <= {TORCHS}
    assert "every output is what dvc.lock records" in run(project, *command).stdout


def test_import(built, tmp_path):
    project = copied(built, tmp_path)
    picture = next((project / "data/train").rglob("*.jpg"))
    for label in ("Glass", "Metal"):
        many(picture, tmp_path / "photos" / label, 4000)
    command = (*WEIGHIN, "import", "--no-record", str(tmp_path / "photos"))
    draft, before = project / ".data.draft", sha256_tree(project / "data")
    begun = draft / "new/train/Glass"
    assert interrupted(project, command, lambda _: begun.exists()) == (130, "\n" + SAID)
    assert sha256_tree(project / "data") == before
    assert not draft.exists()
    run(project, *command)
    assert len(list((project / "data/train").rglob("*.jpg"))) == 8000


def test_predict(built, tmp_path):
    project = copied(built, tmp_path)
    photos = many(next((project / "data/train").rglob("*.jpg")), tmp_path / "photos", 20_000)
    command = (*WEIGHIN, "predict", "submission/model.onnx", str(photos), "labels.csv")
    code, said = interrupted(project, command, lambda started: _threads(started.pid) > 1)
    assert (code, said) == (130, "\n" + SAID)
    assert not list(project.glob("*labels.csv*"))
    run(project, *command)
    labels = {line.split(",")[1] for line in (project / "labels.csv").read_text().split()[1:]}
    assert len(labels) == 1


def test_demo_data(tmp_path):
    folder = tmp_path / "drawn"
    command = (*WEIGHIN, "demo-data", str(folder), "--count", "900", "--workers", "2")
    code, said = interrupted(tmp_path, command, lambda started: len(_members(started.pid)) > 3)
    assert (code, said[-len(SAID) :]) == (130, SAID)
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def _threads(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def test_a_process_that_is_to_ignore_interrupts_does(tmp_path):
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "from weighin.stage import exit_code;"
        "raise SystemExit(exit_code(lambda: os.kill(os.getpid(), signal.SIGINT)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    heard = code.replace("SIG_IGN", "default_int_handler")
    assert subprocess.run([sys.executable, "-c", heard], cwd=tmp_path).returncode == 130
