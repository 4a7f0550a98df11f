"""A small pack, and the small job run as a process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_job import make_pack

DRIVER = Path(__file__).with_name("run_small_job.py")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def command(packed: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Return the command line that runs the small job; its scratch is `tmp_path`/scratch."""

    def line(
        launcher: list[str] | None = None, scratch: str = "scratch", **given: object
    ) -> list[str]:
        start = launcher or [sys.executable]
        parts = [str(DRIVER), str(packed), str(tmp_path / scratch), str(tmp_path / "weights")]
        return [*start, *parts, *(f"{name}={value}" for name, value in given.items())]

    return line


@pytest.fixture
def run(command: Callable[..., list[str]]) -> Run:
    def go(
        env: dict[str, str] | None = None, launcher: list[str] | None = None, **given: object
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(launcher, **given), capture_output=True, text=True, env=os.environ | (env or {})
        )

    return go


def digest(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the SHA-256 that a finished run printed."""
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]
