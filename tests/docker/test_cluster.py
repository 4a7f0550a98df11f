"""docker/cluster.yaml, service by service, as `docker run` lines: the same study as without it."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.project import make_project, run
from weighin.files import read_yaml

from .conftest import ROOT, Engine, handed_over

pytestmark = [pytest.mark.rebuild, pytest.mark.timeout(3600)]
SERVICES = read_yaml(ROOT / "docker/cluster.yaml")["services"]


@dataclass(frozen=True)
class Place:
    """Where the services run: an image, a user, a project and a network."""

    image: str
    user: str
    project: Path
    network: str


def line(name: str, place: Place) -> list[str]:
    """Return what `docker run` takes for a service before its command, its entrypoint put first."""
    service: dict[str, Any] = SERVICES[name]
    words = ["--network", place.network, "--network-alias", name, "--user", place.user]
    words += ["--workdir", service["working_dir"]]
    words += [f"--cap-drop={what}" for what in service["cap_drop"]]
    words += [f"--security-opt={what}" for what in service["security_opt"]]
    words += [f"--tmpfs={place}" for place in service["tmpfs"]]
    for volume in service["volumes"]:
        assert volume.startswith("..:")
        words.append(f"--volume={place.project}{volume.removeprefix('..')}")
    words += [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
    first, *rest = service.get("entrypoint", [None])
    return [*words, *(["--entrypoint", first] if first else []), place.image, *rest]


@pytest.fixture
def network(engine: Engine) -> Iterator[str]:
    """A network without a way out, and what was started in it gone at the end."""
    name = f"weighin-cluster-test-{os.getpid()}"
    engine.run("docker", "network", "create", "--internal", name, check=True)
    yield name
    engine.run("docker", "rm", "--force", f"{name}-scheduler", f"{name}-worker")
    engine.run("docker", "network", "rm", name)


def start(engine: Engine, name: str, place: Place) -> None:
    command = SERVICES[name].get("command", [])
    words = ("docker", "run", "--detach", "--name", f"{place.network}-{name}")
    done = engine.run(*words, *line(name, place), *command)
    assert done.returncode == 0, done.stderr


def wait_until_healthy(engine: Engine, container: str) -> None:
    test = SERVICES["scheduler"]["healthcheck"]["test"][1:]
    end = time.monotonic() + 60
    while engine.run("docker", "exec", container, *test).returncode:
        assert time.monotonic() < end, engine.run("docker", "logs", container).stderr
        time.sleep(1)


def test_the_clusters_study_is_that_of_one_machine(
    engine: Engine, rebuild: str, network: str, short: Path
) -> None:
    outside, inside = make_project(short / "alone"), make_project(short / "clustered")
    place = Place(rebuild, handed_over(inside), inside, network)
    made = engine.run("docker", "run", "--rm", *line("certificates", place))
    assert made.returncode == 0, made.stderr
    start(engine, "scheduler", place)
    wait_until_healthy(engine, f"{network}-scheduler")
    start(engine, "worker", place)
    words = ("docker", "run", "--rm", *line("repro", place), "dvc", "repro", "search")
    done = engine.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    worked = engine.run("docker", "logs", f"{network}-worker")
    assert "Registered to:       tls://scheduler:8786" in worked.stderr
    run(outside, "dvc", "repro", "search")
    for name in ("network.yaml", "trials.json"):
        found = (inside / "work/search" / name).read_bytes()
        assert found == (outside / "work/search" / name).read_bytes(), name
