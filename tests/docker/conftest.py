"""A real engine, and the grader image built by it from two clones of the last commit.

The engine that answers is used; else WEIGHIN_DOCKER_TOOLS may name a folder whose engine-up.sh and
base-image.sh bring an engine and a stand-in for the pinned base. Without both, these tests skip.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 12345  # a user that owns nothing; the tests themselves often run as root

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Built:
    """An image and what identifies it."""

    tag: str
    id: str
    tree: str
    size: int


@dataclass(frozen=True)
class Engine:
    """A running engine and the variables that lead to it."""

    environment: dict[str, str]
    ours: bool = False  # started by these tests: all that it holds is theirs

    def run(self, *command: object, **options: Any) -> Done:
        """Run a command, `docker` or one of docker/*.sh, and return what it said."""
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env=os.environ | self.environment | options.pop("env", {}),
            check=options.pop("check", False),
            timeout=3600,
            **options,
        )

    @contextmanager
    def with_entrypoint(self, image: "Built", name: str, *command: str) -> Iterator[str]:
        """Yield the tag of an image of that name which runs another command."""
        tag = image.tag.replace("grader", name)
        recipe = f"FROM {image.tag}\nENTRYPOINT {json.dumps(command)}\n"
        done = self.run("docker", "build", "-q", "-t", tag, "-", input=recipe)
        assert done.returncode == 0, done.stderr
        yield tag
        self.run("docker", "rmi", "--force", tag)

    def build(self, clone: Path, wheels: Path, target: str, tag: str, **env: str) -> Built:
        """Build a clone's image."""
        done = self.run("sh", clone / "docker/build.sh", target, wheels, tag, env=env)
        assert done.returncode == 0, done.stderr
        return Built(tag, **json.loads(done.stdout.partition(" ")[2]))

    def forget(self, *tags: str) -> None:
        """Remove images; from an engine of ours also what builds left, twice as much."""
        self.run("docker", "rmi", "--force", *tags)
        if self.ours:
            self.run("docker", "builder", "prune", "--all", "--force")

    def as_nobody(self, home: Path) -> dict[str, Any]:
        """Return the options of `run` that make it another user's, who may use the engine."""
        if os.geteuid() != 0:
            return {}
        address = self.environment.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        group = Path(address.removeprefix("unix://")).stat().st_gid
        return {
            "user": NOBODY,
            "group": NOBODY,
            "extra_groups": [group],
            "env": {"HOME": str(home)},
        }


@pytest.fixture(scope="session")
def short() -> Iterator[Path]:
    """A folder that every user may enter, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="weighin-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def engine(short: Path) -> Iterator[Engine]:
    tools = os.environ.get("WEIGHIN_DOCKER_TOOLS")
    here = Engine({name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ})
    if shutil.which("docker") and here.run("docker", "info").returncode == 0:
        yield here
        return
    if not tools:
        pytest.skip(
            "no Docker engine answers, and WEIGHIN_DOCKER_TOOLS names no tools to start one"
        )
    up = here.run("bash", Path(tools) / "engine-up.sh", short / "engine", check=True)
    host = up.stdout.strip().removeprefix("export DOCKER_HOST=")
    started = Engine({"DOCKER_HOST": host, "BASE_IMAGE": "weighin-base:local"}, ours=True)
    try:
        started.run(
            "bash", Path(tools) / "base-image.sh", short / "base", "weighin-base:local", check=True
        )
        yield started
    finally:
        stop(short / "engine/docker.pid")


def stop(pidfile: Path) -> None:
    """Stop the engine that was started here, and no other."""
    os.kill(int(pidfile.read_text()), signal.SIGTERM)
    end = time.monotonic() + 30
    while pidfile.exists() and time.monotonic() < end:
        time.sleep(0.1)
    # what it leaves mounted would keep its folder from going
    left = pidfile.parent / "exec/netns/default"
    subprocess.run(["umount", left], capture_output=True, check=False)


@pytest.fixture(scope="session")
def wheels(engine: Engine, short: Path) -> Path:
    done = engine.run(
        "sh", ROOT / "docker/wheels.sh", "grader", short / "wheels", env={"PYTHON": sys.executable}
    )
    assert done.returncode == 0, done.stderr
    return short / "wheels"


@pytest.fixture(scope="session")
def clones(short: Path) -> tuple[Path, Path]:
    """The last commit, cloned to two places under two umasks."""
    places = (short / "one", short / "deeper/and elsewhere/two")
    for place, umask in zip(places, (0o022, 0o077), strict=True):
        subprocess.run(["git", "clone", "-q", ROOT, place], check=True, umask=umask)
    return places


Builds = Callable[..., Built]


@pytest.fixture(scope="session")
def builds(engine: Engine, wheels: Path, clones: tuple[Path, Path]) -> Iterator[Builds]:
    """Build the grader of clone 0 or 1; the images go when the tests end."""
    tags = []

    def build(clone: int, **env: str) -> Built:
        tags.append(f"weighin-grader-test:{os.getpid()}-{len(tags)}")
        return engine.build(clones[clone], wheels, "grader", tags[-1], **env)

    yield build
    engine.forget(*tags)


@pytest.fixture(scope="session")
def image(builds: Builds) -> Built:
    return builds(0)


Rebuilds = Callable[[int], Built]


@pytest.fixture(scope="session")
def rebuilds(engine: Engine, clones: tuple[Path, Path], short: Path) -> Iterator[Rebuilds]:
    """Build the rebuild image of clone 0 or 1."""
    command = ("sh", ROOT / "docker/wheels.sh", "rebuild", short / "packages")
    done = engine.run(*command, env={"PYTHON": sys.executable})
    assert done.returncode == 0, done.stderr
    tags = [f"weighin-rebuild-test:{os.getpid()}-{clone}" for clone in (0, 1)]
    yield lambda clone: engine.build(clones[clone], short / "packages", "rebuild", tags[clone])
    engine.forget(*tags)


@pytest.fixture(scope="session")
def rebuilt(rebuilds: Rebuilds) -> Built:
    return rebuilds(0)


@pytest.fixture(scope="session")
def rebuild(request: pytest.FixtureRequest) -> str:
    """The rebuild image's name: that in WEIGHIN_REBUILD, else one that is built here."""
    named = os.environ.get("WEIGHIN_REBUILD")
    return named or str(request.getfixturevalue("rebuilt").tag)


def handed_over(folder: Path) -> str:
    """Return this user as user:group; in root's place one who then owns `folder` and no more."""
    if os.geteuid() != 0:
        return f"{os.geteuid()}:{os.getegid()}"
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)
    return f"{NOBODY}:{NOBODY}"
