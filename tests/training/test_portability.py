"""The same bytes on other processors, emulated by qemu-user; without the pins they differ."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from weighin.determinism import PINS

pytestmark = pytest.mark.portability
STEPS = Path(__file__).with_name("run_a_few_steps.py")
CPUS = ["Haswell", "EPYC"]


@pytest.fixture(scope="module")
def qemu() -> str:
    found = shutil.which("qemu-x86_64")
    if found is None:
        pytest.skip("no qemu-x86_64; install the package qemu-user")
    return found


def trained(packed: Path, pinned: bool, *emulator: str) -> str:
    """Return the hash of a few steps; an emulator runs the interpreter itself, not a launcher."""
    env = {name: value for name, value in os.environ.items() if name not in PINS}
    env |= PINS if pinned else {"OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    line = [*emulator, os.path.realpath(sys.executable), str(STEPS), str(packed)]
    return subprocess.run(line, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def here(packed: Path) -> str:
    return trained(packed, True)


@pytest.mark.parametrize("cpu", CPUS)
def test_another_processor_gives_the_same_bytes(
    packed: Path, qemu: str, here: str, cpu: str
) -> None:
    assert trained(packed, True, qemu, "-cpu", cpu) == here


def test_without_the_pins_they_differ(packed: Path, qemu: str) -> None:
    older = trained(packed, False, qemu, "-cpu", "Nehalem")  # every library has code for it too
    assert older != trained(packed, False)
