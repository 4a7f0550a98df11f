"""Grading in the container as people do it: what comes out, and what goes wrong."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.small_models import make_model, write_pictures

from .conftest import NOBODY, ROOT, Built, Done, Engine

pytestmark = pytest.mark.docker
DATA = os.environ.get("WEIGHIN_DATA")
FIX_OUT = (
    "  to fix: make the folder yourself (`mkdir -p OUT`) and run as its owner; "
    'in a container: `--user "$(id -u):$(id -g)" -v "$PWD/OUT":/output`'
)


@dataclass(frozen=True)
class Contest:
    """A model and pictures that a user without rights may read, and a place of that user's."""

    engine: Engine
    image: str
    script: Path
    model: Path
    pictures: Path
    home: Path
    options: dict[str, Any]

    def grade(self, *more: object, **changed: object) -> Done:
        """Run docker/grade.sh on it, as that user."""
        given = {"model": self.model, "test": self.pictures, "out": self.home / "out"} | changed
        return self.engine.run(
            "sh", self.script, self.image, *given.values(), *more, **self.options
        )

    def docker(self, out: str, *flags: str) -> Done:
        """Run the image by hand, as whoever runs the tests."""
        mounts = ("-v", f"{self.model}:/model.onnx:ro", "-v", f"{self.pictures}:/input:ro")
        command = ("docker", "run", "--rm", "--network", "none", *mounts, *flags)
        return self.engine.run(*command, *(("-v", f"{out}:/output") if out else ()), self.image)


@pytest.fixture
def contest(
    engine: Engine,
    image: Built,
    clones: tuple[Path, Path],
    short: Path,
) -> Contest:
    home = Path(tempfile.mkdtemp(dir=short))
    home.chmod(0o755)
    model = home / "model.onnx"
    model.write_bytes(make_model().SerializeToString())
    write_pictures(home / "pictures")
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    script = clones[0] / "docker/grade.sh"
    return Contest(
        engine, image.tag, script, model, home / "pictures", home, engine.as_nobody(home)
    )


def local(model: Path, pictures: Path, out: Path) -> Path:
    """Grade outside the container."""
    subprocess.run(
        [sys.executable, "-m", "weighin.grading", model, pictures, out],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
    )
    return out


def test_the_same_as_outside_the_container(contest: Contest, tmp_path: Path) -> None:
    pictures = Path(DATA) / "waste7/public" if DATA else contest.pictures
    done = contest.grade(test=pictures)
    assert (done.returncode, done.stderr) == (0, "")
    out, outside = contest.home / "out", local(contest.model, pictures, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["grade.json", "submission.csv"]
    text = (out / "submission.csv").read_bytes()
    assert text == (outside / "submission.csv").read_bytes()
    assert len(text.splitlines()) == 1 + sum(path.is_file() for path in pictures.rglob("*"))
    first, second = (json.loads((place / "grade.json").read_text()) for place in (out, outside))
    assert first.pop("speed") and second.pop("speed")
    assert first == second
    assert (out / "grade.json").stat().st_uid == (NOBODY if os.geteuid() == 0 else os.geteuid())


def test_with_the_truth(contest: Contest) -> None:
    truth = contest.home / "the truth.csv"
    truth.write_text("filename,class\nred.png,red\nblue.png,green\n")
    done = contest.grade(truth)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "macro F1 0.3333, score 1.0000"
    found = json.loads((contest.home / "out/grade.json").read_text())
    assert (found["quality"]["images"], found["quality"]["accuracy"]) == (2, 0.5)


def test_a_picture_that_may_not_be_read(contest: Contest) -> None:
    (contest.pictures / "red.png").chmod(0)
    assert contest.grade().returncode == 0
    found = json.loads((contest.home / "out/grade.json").read_text())
    assert found["unreadable"] == {"red.png": "no-permission"}


def test_an_out_that_the_user_cannot_write(contest: Contest) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs a folder of somebody else's")
    (contest.home / "out").mkdir()  # root's
    done = contest.grade()
    assert done.returncode == 9
    wrong = "error: cannot write to /output: Permission denied"
    assert done.stderr.splitlines() == [wrong, FIX_OUT]
    assert list((contest.home / "out").iterdir()) == []


def test_an_out_that_the_engine_made(contest: Contest) -> None:
    done = contest.docker(f"{contest.home}/missing")
    assert done.returncode == 9
    wrong = "error: cannot write to /output: Permission denied"
    assert done.stderr.splitlines() == [wrong, FIX_OUT]


def test_an_out_that_is_full(contest: Contest) -> None:
    for i in range(2_000):
        (contest.pictures / f"{i:0200}.png").hardlink_to(contest.pictures / "red.png")
    done = contest.docker("", "--tmpfs", "/output:size=64k,mode=1777")
    assert done.returncode == 9, done.stderr
    assert done.stderr.splitlines()[0] == (
        "error: cannot write /output/submission.csv: No space left on device"
    )


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"model": "no.onnx"}, 8, "no.onnx is not a file"),
        ({"test": "no"}, 5, "no is not a folder"),
        ({"out": "/proc/out"}, 9, "cannot make /proc/out"),
    ],
)
def test_what_is_missing(
    contest: Contest, changed: dict[str, object], code: int, words: str
) -> None:
    done = contest.grade(**changed)
    assert done.returncode == code
    assert done.stderr.splitlines()[0] == f"error: {words}"
    assert done.stderr.splitlines()[1].startswith("  to fix: ")


def test_stop_leaves_the_earlier_grade(contest: Contest) -> None:
    assert contest.grade().returncode == 0
    out = contest.home / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for i in range(20_000):
        (contest.pictures / f"{i}.png").symlink_to("red.png")
    name = f"weighin-test-{os.getpid()}"
    command = ("docker", "run", "--detach", "--name", name, "--network", "none", "--user", "0:0")
    mounts = (f"{contest.model}:/model.onnx:ro", f"{contest.pictures}:/input:ro", f"{out}:/output")
    flags = [part for mount in mounts for part in ("-v", mount)]
    assert contest.engine.run(*command, *flags, contest.image).returncode == 0
    time.sleep(1.5)
    assert contest.engine.run("docker", "stop", "--time", "20", name).returncode == 0
    state = contest.engine.run("docker", "inspect", "--format", "{{.State.ExitCode}}", name)
    contest.engine.run("docker", "rm", "--force", name)
    assert state.stdout.strip() == "143"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
