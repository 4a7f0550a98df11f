"""Every flag of docker/grade.sh, each tried from inside the container, with and without it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import NOBODY, Built, Done, Engine

pytestmark = pytest.mark.docker
PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class Desk:
    """Folders of a user who may use the engine and owns nothing else."""

    script: Path
    model: Path
    test: Path
    out: Path
    options: dict[str, Any]

    def grade(self, engine: Engine, image: str, **env: str) -> Done:
        """Run docker/grade.sh as that user."""
        options = self.options | {"env": self.options.get("env", {}) | env}
        return engine.run("sh", self.script, image, self.model, self.test, self.out, **options)


@pytest.fixture(scope="module")
def desk(engine: Engine, short: Path, clones: tuple[Path, Path]) -> Desk:
    home = short / "desk"
    for folder in ("test", "out"):
        (home / folder).mkdir(parents=True)
    model = home / "probe.py"
    model.write_bytes(PROBE.read_bytes())
    if os.geteuid() == 0:
        for path in (home, home / "out"):
            os.chown(path, NOBODY, NOBODY)
    script = clones[0] / "docker/grade.sh"  # a user without rights cannot enter every checkout
    return Desk(script, model, home / "test", home / "out", engine.as_nobody(home))


@pytest.fixture(scope="module")
def probe(engine: Engine, image: Built) -> Iterator[str]:
    """The grader's image, but it runs as Python what it is given as the model."""
    with engine.with_entrypoint(image, "probe", "python3", "/model.onnx") as tag:
        yield tag


@pytest.fixture(scope="module")
def hardened(engine: Engine, probe: str, desk: Desk) -> dict[str, Any]:
    done = desk.grade(engine, probe)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def plain(engine: Engine, probe: str, desk: Desk) -> dict[str, Any]:
    """The same without a flag: what each of them is worth."""
    mounts = ("-v", f"{desk.model}:/model.onnx", "-v", f"{desk.test}:/input")
    more = ("-v", f"{desk.out}:/output", "--network", "host", "--user", "0:0")
    done = engine.run("docker", "run", "--rm", *mounts, *more, probe)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


READ_ONLY = "Read-only file system"
WITHOUT_AND_WITH: list[tuple[str, Any, Any]] = [
    ("root", "done", READ_ONLY),
    ("packages", "done", READ_ONLY),
    ("input", "done", READ_ONLY),
    ("output", "done", "done"),
    ("tmp", "done", "done"),
    ("tmp too full", "done", "No space left on device"),
    ("program in tmp", "done", "Permission denied"),
    ("new privileges", "0", "1"),
]


@pytest.mark.parametrize(("what", "before", "after"), WITHOUT_AND_WITH)
def test_files_and_privileges(
    hardened: dict[str, Any], plain: dict[str, Any], what: str, before: str, after: str
) -> None:
    assert (plain[what], hardened[what]) == (before, after)


def test_capabilities(hardened: dict[str, Any], plain: dict[str, Any]) -> None:
    assert plain["capabilities"] != 0
    assert hardened["capabilities"] == 0


def test_network(hardened: dict[str, Any], plain: dict[str, Any]) -> None:
    assert len(plain["networks"]) > 1
    assert hardened["networks"] == ["lo"]


def test_processes(hardened: dict[str, Any], plain: dict[str, Any]) -> None:
    assert plain["processes"] == 300
    assert 200 < hardened["processes"] < 256


def test_user(hardened: dict[str, Any], plain: dict[str, Any]) -> None:
    me = [NOBODY, NOBODY] if os.geteuid() == 0 else [os.geteuid(), os.getegid()]
    assert plain["user"] == [0, 0]
    assert hardened["user"] == me


def test_memory(engine: Engine, probe: str, desk: Desk) -> None:
    """400 MB fit under the limit of 4 GB, and end the container under one of 200 MB."""
    (desk.test / "memory").touch()
    roomy, tight = (desk.grade(engine, probe, MEMORY=limit) for limit in ("4g", "200m"))
    (desk.test / "memory").unlink()
    assert roomy.returncode == 0, roomy.stderr
    assert tight.returncode == 137
