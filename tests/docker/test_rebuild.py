"""The rebuild image: the whole pipeline inside it, offline, gives the bytes that it gives outside.

WEIGHIN_REBUILD may name an image that `make images` built; else it is built here, which takes
minutes and 10 GB.
"""

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.project import (
    IMAGES,
    SIDE,
    TINY,
    commit,
    environment,
    make_project,
    run,
    set_params,
)
from weighin.contest.submissions import zipped
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
    # the record is of what is there; `inputs` is a stage that always runs
    left = run(checkout, "dvc", "status", "--json", **safe(checkout))
    assert json.loads(left.stdout) == {"inputs": ["always changed"]}


def test_the_default_submission(inside: Callable[[Path], None], short: Path) -> None:
    """From a clean checkout, its data drawn inside, to the committed record."""
    checkout = short / "default"
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(checkout))
    inside(checkout)
    for name in ("dvc.lock", "submission/metrics.json"):
        assert (checkout / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_verdicts_of_a_board(engine: Engine, rebuild: str, short: Path) -> None:
    """Verified, differs at a stage, cannot be compared here, not tried: each in the real image.

    The one that differs committed the record of a longer training than its parameters ask for.
    """
    project, entries = make_project(short / "honest"), short / "entries"
    run(project, "git", "remote", "add", "origin", str(project))
    run(project, "dvc", "repro")
    commit(project)
    entries.mkdir()
    run(project, "weighin", "submit", str(entries / "honest.zip"))
    forged = short / "forged"
    shutil.copytree(project, forged, symlinks=True)
    run(forged, "git", "remote", "set-url", "origin", str(forged))
    honest_params = (forged / "params.yaml").read_bytes()
    set_params(forged, {**TINY, "train.epochs": 4})
    run(forged, "dvc", "repro")
    (forged / "params.yaml").write_bytes(honest_params)
    commit(forged)
    with zipfile.ZipFile(entries / "honest.zip") as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    source = json.loads(files["source.json"])
    head = run(forged, "git", "rev-parse", "HEAD").stdout.strip()
    source |= {"repository": str(forged), "commit": head}
    files |= {"source.json": json.dumps(source).encode()}
    files |= {"model.onnx": (forged / "submission/model.onnx").read_bytes()}
    (entries / "forged.zip").write_bytes(zipped(files))
    (entries / "nowhere.onnx").write_bytes(files["model.onnx"])
    (entries / "nowhere2.onnx").write_bytes(files["model.onnx"])
    command = (sys.executable, "-m", "weighin", "leaderboard", entries, short / "board")
    more = ("--test", project / "data/test", "--truth", project / "data/test_truth.csv")
    how = ("--rebuild", "3", "--rebuild-image", rebuild, "--data", project / "data")
    done = engine.run(*command, *more, *how, env=environment(ROOT))
    assert done.returncode == 0, done.stderr
    text = (short / "board/leaderboard.json").read_text(encoding="utf-8")
    lines = {line["team"]: line["rebuilt"] for line in json.loads(text)["submissions"]}
    tried = {team: said for team, said in lines.items() if said != "not tried"}
    assert len(tried) == 3
    assert {"honest": "verified", "forged": "differs at train"}.items() <= lines.items()
    nameless = "cannot be compared here: it names no repository and commit"
    assert sorted(lines[f"nowhere{n}"] for n in ("", "2")) == [nameless, "not tried"]
    assert not [path for path in (short / "board/rebuilt").iterdir() if path.is_dir()]
    names = ("docker", "ps", "--all", "--quiet", "--filter", "name=weighin-")
    assert engine.run(*names).stdout == ""


def safe(folder: Path) -> dict[str, str]:
    """Return what lets Git read a folder of another user's."""
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    return {**settings, "GIT_CONFIG_VALUE_0": str(folder)}


@pytest.mark.skipif("WEIGHIN_REBUILD" in os.environ, reason="WEIGHIN_REBUILD names an image")
def test_two_builds_are_one_image(engine: Engine, rebuilt: Built, rebuilds: Rebuilds) -> None:
    engine.forget(rebuilt.tag)  # the disk need not hold both
    again = rebuilds(1)
    assert (again.id, again.tree) == (rebuilt.id, rebuilt.tree)
