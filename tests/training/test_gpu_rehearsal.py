"""The check for machines with a GPU, rehearsed on the processor from its first line to its last."""

import subprocess
import sys
from pathlib import Path

import pytest

from weighin.files import read_json

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.serial, pytest.mark.cluster]


def test_the_gpu_check_rehearses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", str(tmp_path / "gpu.json"), "--rehearse"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = read_json(tmp_path / "gpu.json")
    assert found["errors"] == {}
    assert found["checks"] == dict.fromkeys(
        (
            "another process", "after a kill", "two processes", "another seed differs",
            "trials at once",
        ),
        True,
    )  # fmt: skip
    assert {
        "images/s float32",
        "cost of determinism",
        "F1 on the GPU",
        "faster than the processor",
    } <= (found["figures"].keys())
    assert "after a kill                        passed" in done.stdout
