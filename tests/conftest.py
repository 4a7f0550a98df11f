"""Every test runs in a pinned process: this one restarts pytest with the pins if it must."""

import os
import signal
import sys

import pytest

from weighin.determinism import PINS, pinned


def pytest_configure(config: pytest.Config) -> None:
    # a shell's background job ignores interrupts, and so would every process of the tests
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
