"""data/ as DVC keeps it: `data.dvc` names its content, so Git's history is the data's history."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from weighin.errors import DataError, MismatchError
from weighin.yaml_files import read_yaml

QUIET = {"DVC_NO_ANALYTICS": "1"}


def dvc(project: Path, *arguments: str) -> str:
    """Run DVC in a project's folder and return what it printed.

    Raises:
        DataError: DVC failed; its own words say why.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=project, env={**os.environ, **QUIET}, capture_output=True, text=True
    )
    if done.returncode:
        words = " ".join(done.stderr.rpartition("ERROR: ")[2].split())
        fix = (
            "run `git init` and `dvc init` in the project's folder first"
            if "not inside of a DVC repository" in done.stderr
            else f"run `dvc {' '.join(arguments)} -v` to see all of it"
        )
        raise DataError(f"`dvc {' '.join(arguments)}` failed: {words}", fix)
    return done.stdout


def record(project: Path, data: str = "data") -> str:
    """Record the folder `data` with `dvc add` and return the name of the file that tells it."""
    dvc(project, "add", data)
    return f"{data}.dvc"


def recorded(project: Path, data: str = "data") -> str | None:
    """Return DVC's hash of the folder that `data`.dvc records; None if there is no such file."""
    path = project / f"{data}.dvc"
    if not path.exists():
        return None
    try:
        return str(read_yaml(path)["outs"][0]["md5"])
    except (KeyError, IndexError, TypeError):
        raise DataError(f"{path} records no folder", f"run `dvc add {data}` again") from None


def fetch(project: Path, default: str, draw: Callable[[Path], object]) -> str:
    """Bring data/ to what data.dvc records; return one line that says where it came from.

    `draw` draws the default data set, whose hash is `default`, into a folder.

    Raises:
        DataError: nothing is recorded, or it can be had from nowhere.
        MismatchError: what was drawn here is not what is recorded.
    """
    wanted, folder = recorded(project), project / "data"
    if wanted is None:
        fix = "bring a data set in with `weighin import FOLDER|CSV|COCO`"
        raise DataError("there is no data.dvc", fix)
    if folder.exists() and any(folder.iterdir()):
        return "data/ is there"
    if _checkout(project):
        return "data/ comes from DVC's cache"
    if wanted != default:
        dvc(project, "pull", "data.dvc")
        return "data/ comes from the remote"
    draw(folder)
    record(project)
    drawn = recorded(project)
    if drawn != wanted:
        (project / "data.dvc").write_text(
            (project / "data.dvc").read_text(encoding="utf-8").replace(str(drawn), wanted),
            encoding="utf-8",
        )
        raise MismatchError(
            f"the data set drawn here is {drawn}, data.dvc records {wanted}",
            "install the versions of requirements.lock, remove data/ and run `weighin fetch` again",
        )
    return "data/ was drawn, and is what data.dvc records"


def _checkout(project: Path) -> bool:
    try:
        dvc(project, "checkout", "data.dvc")
    except DataError:
        return False
    return True
