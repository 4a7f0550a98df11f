"""docker/cluster.yaml, service by service, as `docker run` lines: the same study as without it.

WEIGHIN_REBUILD names the image that `make images` built.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.project import make_project, run
from weighin.schema import read_yaml

from .conftest import NOBODY, ROOT, Engine

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
SERVICES = read_yaml(ROOT / "docker/cluster.yaml")["services"]
IMAGE = os.environ.get("WEIGHIN_REBUILD", "")
needs_image = pytest.mark.skipif(not IMAGE, reason="WEIGHIN_REBUILD names no image")


def line(name: str, project: Path, network: str) -> list[str]:
    """Return what `docker run` takes for a service before its command, its entrypoint put first."""
    service: dict[str, Any] = SERVICES[name]
    user = f"{NOBODY}:{NOBODY}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"
    words = ["--network", network, "--network-alias", name, "--user", user]
    words += ["--workdir", service["working_dir"]]
    words += [f"--cap-drop={what}" for what in service["cap_drop"]]
    words += [f"--security-opt={what}" for what in service["security_opt"]]
    words += [f"--tmpfs={place}" for place in service["tmpfs"]]
    for volume in service["volumes"]:
        assert volume.startswith("..:")
        words.append(f"--volume={project}{volume.removeprefix('..')}")
    words += [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
    first, *rest = service.get("entrypoint", [None])
    return [*words, *(["--entrypoint", first] if first else []), IMAGE, *rest]


@pytest.fixture
def network(engine: Engine) -> Iterator[str]:
    """A network without a way out, and what was started in it gone at the end."""
    name = f"weighin-cluster-test-{os.getpid()}"
    engine.run("docker", "network", "create", "--internal", name, check=True)
    yield name
    engine.run("docker", "rm", "--force", f"{name}-scheduler", f"{name}-worker")
    engine.run("docker", "network", "rm", name)


def start(engine: Engine, name: str, project: Path, network: str) -> None:
    command = SERVICES[name].get("command", [])
    words = ("docker", "run", "--detach", "--name", f"{network}-{name}")
    done = engine.run(*words, *line(name, project, network), *command)
    assert done.returncode == 0, done.stderr


def wait_until_healthy(engine: Engine, container: str) -> None:
    test = SERVICES["scheduler"]["healthcheck"]["test"][1:]
    end = time.monotonic() + 60
    while engine.run("docker", "exec", container, *test).returncode:
        assert time.monotonic() < end, engine.run("docker", "logs", container).stderr
        time.sleep(1)


@needs_image
def test_the_clusters_study_is_that_of_one_machine(
    engine: Engine, network: str, short: Path
) -> None:
    outside, inside = make_project(short / "alone"), make_project(short / "clustered")
    if os.geteuid() == 0:
        for path in (inside, *inside.rglob("*")):
            os.lchown(path, NOBODY, NOBODY)
    start(engine, "scheduler", inside, network)
    wait_until_healthy(engine, f"{network}-scheduler")
    start(engine, "worker", inside, network)
    words = ("docker", "run", "--rm", *line("repro", inside, network), "dvc", "repro", "search")
    done = engine.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    worked = engine.run("docker", "logs", f"{network}-worker")
    assert "Registered to:       tcp://scheduler:8786" in worked.stderr
    run(outside, "dvc", "repro", "search")
    for name in ("network.yaml", "trials.json"):
        found = (inside / "work/search" / name).read_bytes()
        assert found == (outside / "work/search" / name).read_bytes(), name
