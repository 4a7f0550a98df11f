"""The rebuild image: the whole pipeline inside it, offline, gives the bytes that it gives outside.

WEIGHIN_REBUILD may name an image that `make images` built; else it is built here, which takes
minutes and 10 GB.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.project import IMAGES, SIDE, make_project, run
from weighin.data.demo import draw_demo

from .conftest import ROOT, Built, Engine, Rebuilds, handed_over

pytestmark = [pytest.mark.rebuild, pytest.mark.timeout(3600)]
HARDENED = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")


@pytest.fixture
def inside(engine: Engine, rebuild: str) -> Callable[[Path], None]:
    """Do what the image is for in a checkout, as a user who owns nothing else."""

    def run_inside(checkout: Path) -> None:
        user = handed_over(checkout)
        place = ("--user", user, "-v", f"{checkout}:/project")
        done = engine.run("docker", "run", "--rm", *HARDENED, *place, rebuild)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (checkout / "submission/submission.csv").stat().st_uid == int(user.partition(":")[0])

    return run_inside


def test_the_same_lock_inside_and_outside(inside: Callable[[Path], None], short: Path) -> None:
    outside, checkout = make_project(short / "outside"), short / "inside"
    run(outside, "git", "clone", "--quiet", ".", str(checkout))
    draw_demo(checkout / "data", IMAGES, SIDE)
    inside(checkout)
    run(outside, "dvc", "repro")
    assert (checkout / "dvc.lock").read_bytes() == (outside / "dvc.lock").read_bytes()
    # the receipt is of what is there
    left = run(checkout, "dvc", "status", "--quiet", check=False, **safe(checkout))
    assert left.returncode == 0, left.stdout + left.stderr


def test_the_default_submission(inside: Callable[[Path], None], short: Path) -> None:
    """From a clean checkout, its data drawn inside, to the committed record."""
    checkout = short / "default"
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(checkout))
    inside(checkout)
    for name in ("dvc.lock", "submission/metrics.json"):
        assert (checkout / name).read_bytes() == (ROOT / name).read_bytes(), name


def safe(folder: Path) -> dict[str, str]:
    """Return what lets Git read a folder of another user's."""
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    return {**settings, "GIT_CONFIG_VALUE_0": str(folder)}


@pytest.mark.skipif("WEIGHIN_REBUILD" in os.environ, reason="WEIGHIN_REBUILD names an image")
def test_two_builds_are_one_image(rebuilt: Built, rebuilds: Rebuilds) -> None:
    again = rebuilds(1)
    assert (again.id, again.tree) == (rebuilt.id, rebuilt.tree)
