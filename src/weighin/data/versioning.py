"""Records data/ with DVC: `data.dvc` names its content, so Git's history is the data's history."""

import os
import subprocess
import sys
from pathlib import Path

from weighin.errors import DataError
from weighin.schema import read_yaml

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
