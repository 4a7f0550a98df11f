"""This machine: whether it computes the promised bytes, and what its programs say.

Processor, C library and packages decide. The promise holds for x86-64 processors with AVX2 under
Linux with glibc. Elsewhere a stage stops before any work, unless WEIGHIN_ALLOW_UNPORTABLE=1 says
that other bytes will do.
"""

import contextlib
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from weighin.errors import DataError, MachineError

NEEDED = ("avx2", "fma")
ALLOW = "WEIGHIN_ALLOW_UNPORTABLE"
NOT_YOURS = "Git does not read this folder, which belongs to another user"
LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)


@cache
def _cpuinfo() -> dict[str, str]:
    """Return what Linux says of the first processor."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        pairs = (line.partition(":") for line in lines)
        return {name.strip(): value.strip() for name, _, value in pairs}
    return {}


def processor() -> str:
    """Return the processor's name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def instruction_sets() -> frozenset[str]:
    """Return the instruction sets that the processor offers, in Linux's names."""
    return frozenset(_cpuinfo().get("flags", "").split())


def unportable() -> str:
    """Return why this machine cannot compute the promised bytes, or "" where it can."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return f"this is {sys.platform} on {platform.machine()}, not Linux on x86-64"
    if not _has_glibc():
        return "the C library is not glibc"
    missing = [name for name in NEEDED if name not in instruction_sets()]
    return f"the processor lacks {' and '.join(missing)}" if missing else ""


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):  # musl knows no such name
        return False


def allows_unportable() -> bool:
    """Whether other bytes than the promised ones will do: provenance.json says so then."""
    return os.environ.get(ALLOW, "") not in ("", "0")


def require_portable() -> None:
    """Stop where the promised bytes cannot be computed.

    Raises:
        MachineError: says why, and how to go on all the same.
    """
    reason = unportable()
    if reason and not allows_unportable():
        raise MachineError(
            f"this machine computes other bytes than the promised ones: {reason}",
            f"use an x86-64 Linux machine with AVX2, or set {ALLOW}=1 to go on with bytes that "
            "hold for this kind of machine alone; provenance.json will say so",
        )


def output(*command: str, folder: Path | None = None, seconds: float | None = None) -> str | None:
    """Return what a program prints, stripped; None where it fails, takes longer or is not there."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def untrusted(folder: Path) -> str | None:
    """Return the command that lets Git read a folder of another user; None where it reads it."""
    try:
        english = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            ["git", "rev-parse"], cwd=folder, capture_output=True, text=True, env=english
        )
    except OSError:
        return None
    trust = f"git config --global --add safe.directory {shlex.quote(str(folder.absolute()))}"
    return trust if "dubious ownership" in done.stderr else None


def require_trusted(folder: Path) -> None:
    """Stop where Git does not read a folder.

    Raises:
        DataError: it belongs to another user.
    """
    if trust := untrusted(folder):
        raise DataError(NOT_YOURS, trust)


class Library(NamedTuple):
    """A package whose installed version is not the locked one; None: it is not installed."""

    name: str
    locked: str
    installed: str | None

    def __str__(self) -> str:
        here = "is not installed" if self.installed is None else f"{self.installed} is installed"
        return f"{self.name} {here}, requirements.lock says {self.locked}"


def locked_versions(lock: Path) -> dict[str, str]:
    """Return {package: version} of a lock file, or nothing where there is none."""
    return dict(LOCKED.findall(lock.read_text(encoding="utf-8") if lock.exists() else ""))


def library_differences(lock: Path) -> list[Library]:
    """Return the packages of a lock file that are not installed as it says.

    Local versions are left out of the comparison: torch's CPU build gives the same bytes.
    """
    both = ((name, locked, installed(name)) for name, locked in locked_versions(lock).items())
    return [Library(*one) for one in both if one[2] != one[1].split("+")[0]]


def installed(name: str) -> str | None:
    """Return a package's version without its local part (`+cpu`); None: it is not installed."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None
