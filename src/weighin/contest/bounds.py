"""Runs commands that work on strangers' files, within bounds of time and of what they write.

Memory and processes are bounded by the container, or by the grader's own limits; this is for what
gets past those: a command that does not end, or that fills the disk.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from weighin.determinism import output

MAX_WRITTEN = 200_000_000  # bytes in the folder that a command may write to
MAX_MESSAGE = 1_000_000  # bytes that it may write to standard error
KEPT_MESSAGE = 4_000  # bytes at its end that are kept
PAUSE = 0.25  # seconds between two looks


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or what it had too much of; and its last words."""

    code: int
    over: str  # "", "time", "output", or "stopped" where another thread asked for that
    said: str


def bounded(
    command: Sequence[str],
    seconds: float,
    folder: Path,
    stopped: Event,
    *,
    container: str = "",
    environment: dict[str, str] | None = None,
    most: int | None = None,
) -> Ended:
    """Run a command to its end or to its bounds; then nothing that it started is left.

    Args:
        command: The program and its arguments.
        seconds: Wall clock.
        folder: What it may write to; `most` bytes in all, or `MAX_WRITTEN`.
        stopped: When it is set, the command is ended.
        container: The name of the container that it starts, if it starts one.
        environment: Variables beside those of this process.
        most: Bytes.
    """
    most, pause = most or MAX_WRITTEN, PAUSE
    end, over = time.monotonic() + seconds, ""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            while process.poll() is None and not over:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(pause)
                looked = time.monotonic()
                if stopped.is_set():
                    over = "stopped"
                elif time.monotonic() > end and process.poll() is None:
                    over = "time"
                elif _written(folder, most) > most or os.fstat(said.fileno()).st_size > MAX_MESSAGE:
                    over = "output"
                pause = max(PAUSE, 20 * (time.monotonic() - looked))  # to look is little work
        finally:
            _end(process, container)
        said.seek(max(0, os.fstat(said.fileno()).st_size - KEPT_MESSAGE))
        return Ended(process.returncode, over, said.read().decode(errors="replace"))


def container_name() -> str:
    """Return a new name for a container, by which it can be ended."""
    return f"weighin-{secrets.token_hex(8)}"


def image_id(image: str) -> str | None:
    """Return the ID of an image; None where no engine answers or none has it."""
    return output("docker", "image", "inspect", "--format", "{{.Id}}", image) or None


def _written(folder: Path, most: int) -> int:
    """Return the bytes on disk below a folder, counted until there are too many."""
    total = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                total += max(4096, 512 * os.lstat(f"{place}/{name}").st_blocks)
        if total > most:
            break
    return total


def _end(process: "subprocess.Popen[bytes]", container: str) -> None:
    """End a command with its process group, and the container that the engine runs for it."""
    was_running = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if container and was_running:
        subprocess.run(("docker", "rm", "--force", container), capture_output=True)
