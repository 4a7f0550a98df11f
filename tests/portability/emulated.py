"""An interpreter that runs on another processor, emulated by qemu-user, and what it starts too."""

import os
import shutil
import sys
from pathlib import Path

import pytest

CPUS = ("EPYC-Milan", "Haswell", "Skylake-Client")


def emulated(folder: Path, cpu: str) -> Path:
    """Return a folder for the front of PATH whose `python` is this one on another processor.

    It is a virtual environment whose interpreter is a script, so that processes which
    sys.executable starts are emulated as well.
    """
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("no qemu-x86_64; install the package qemu-user")
    real = Path(os.path.realpath(sys.executable))
    script = folder / "bin" / "python"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec "{qemu}" -cpu {cpu} -0 "$0" "{real}" "$@"\n')
    script.chmod(0o755)
    (folder / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    return script.parent


def environment(folder: Path, source: Path, **extra: str) -> dict[str, str]:
    """Return the environment in which `python` is the one in `folder`, importing from `source`."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(source), *packages]),
        **extra,
    }
