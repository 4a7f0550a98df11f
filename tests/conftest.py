"""Every test runs in a pinned process: this one restarts pytest with the pins if it must."""

import os
import sys

import pytest

from weighin.determinism import PINS, pinned


def pytest_configure(config: pytest.Config) -> None:
    if pinned():
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    os.execve(
        sys.executable,
        [sys.executable, "-m", "pytest", *config.invocation_params.args],
        {**os.environ, **PINS},
    )
