"""A real project of one's own for a test: this code, a small drawn data set, small parameters."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.pipeline.closure import ROOT
from weighin.data.demo import draw_demo
from weighin.files import read_yaml
from weighin.params import Params
from weighin.validation import commented

IMAGES, SIDE = 150, 32
COPIED = ("src", "stages", "dvc.yaml", "requirements.lock", ".gitignore", ".dvcignore")
TINY = {
    "contest.max_macs": 2_000_000,
    "prepare.sizes": [[24, 24]],
    "prepare.faults.min_per_class": 2,
    "recipe.shard_size": 4,
    "recipe.low_resolution": 0.0,
    "search.space": "tiny",
    "search.trials": 2,
    "search.generation": 2,
    "search.epochs": 2,
    "search.halving": 2,
    "tune.trials": 2,
    "tune.generation": 2,
    "tune.epochs": 2,
    "tune.space": {"lr": [0.01, 0.1]},
    "train.epochs": 3,
    "decompose.ranks": "ratio",
    "decompose.ratio": 0.5,
    "finetune.epochs": 2,
    "report.bootstrap": 200,
}
IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "test"), ("EMAIL", "test@example.org"))
}


def make_project(root: Path, **changes: Any) -> Path:
    """Return a committed project in the new folder `root`, its data drawn and recorded."""
    root.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, root / name)
    set_params(root, {**TINY, **changes})
    draw_demo(root / "data", IMAGES, SIDE)
    run(root, "git", "init", "--quiet", "--initial-branch=main")
    run(root, "dvc", "init", "--quiet")
    shutil.copyfile(ROOT / ".dvc/config", root / ".dvc/config")
    run(root, "dvc", "add", "--quiet", "data")
    commit(root)
    return root


def commit(root: Path) -> None:
    """Commit everything that Git does not ignore."""
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "--quiet", "-m", "change")


def set_params(root: Path, changes: Mapping[str, Any]) -> None:
    """Write the project's own params.yaml with some values changed, by dotted name."""
    values = read_yaml(ROOT / "params.yaml")
    for name, value in changes.items():
        *sections, last = name.split(".")
        place = values
        for section in sections:
            place = place[section]
        assert last in place, name
        place[last] = value
    (root / "params.yaml").write_text(commented(Params, values), encoding="utf-8")


def environment(root: Path, **extra: str) -> dict[str, str]:
    """Return the environment of a user of the project: its own code, this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **IDENTITY, "PATH": path, "PYTHONPATH": str(root / "src"), **extra}


def run(
    root: Path, *command: str, check: bool = True, **extra: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in the project and return what it printed."""
    done = subprocess.run(
        command, cwd=root, env=environment(root, **extra), capture_output=True, text=True
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done


def copied(built: Path, tmp_path: Path) -> Path:
    """Return a copy of a built project, its cache included."""
    target = tmp_path / "copy"
    shutil.copytree(built, target, symlinks=True)
    return target
