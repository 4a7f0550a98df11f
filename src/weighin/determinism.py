"""What makes the same bytes everywhere: one instruction set, randomness with an address, a machine.

The pins make NumPy, OpenBLAS, MKL, oneDNN and ATen use AVX2 code on one thread, whatever the
processor offers. Libraries read them while they load, so `pin` restarts the interpreter when they
are not yet set; call it before NumPy or torch is imported.

Processor, C library and packages decide too. The promise holds for x86-64 processors with AVX2
under Linux with glibc. Elsewhere a stage stops before any work, unless WEIGHIN_ALLOW_UNPORTABLE=1
says that other bytes will do.
"""

import contextlib
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from weighin.errors import DataError, MachineError

if TYPE_CHECKING:
    from numpy.random import Generator

PINS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # MKL's AVX2 code differs between AMD and Intel; this one does not
    "OPENBLAS_CORETYPE": "Haswell",
    # NumPy's exp, log, pow change with AVX-512, and its argsort orders ties otherwise with AVX2
    "NPY_DISABLE_CPU_FEATURES": "X86_V3,X86_V4,AVX512_ICL,AVX512_SPR",
}
NEEDED = ("avx2", "fma")
ALLOW = "WEIGHIN_ALLOW_UNPORTABLE"
NOT_YOURS = "Git does not read this folder, which belongs to another user"
LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)


def pinned() -> bool:
    """Whether this process was started with every pin."""
    return all(os.environ.get(name) == value for name, value in PINS.items())


def pin() -> None:
    """Make this process a pinned one, restarting its interpreter once if need be."""
    restart_with(PINS)


def restart_with(variables: Mapping[str, str]) -> None:
    """Restart the interpreter with these environment variables, unless it has them already."""
    if variables.items() <= os.environ.items():
        return
    loaded = sorted({"numpy", "torch"} & sys.modules.keys())
    if loaded:
        raise RuntimeError(f"pin() must run before {' and '.join(loaded)} is imported")
    os.environ.update(variables)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def generator(*address: int | str) -> "Generator":
    """Return the random stream at an address such as ``(seed, "augment", epoch, shard)``.

    Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by a hash
    of the address: no stream depends on what was drawn from another.
    """
    import numpy as np

    text = "\n".join(map(_spelt, address))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def _spelt(part: int | str) -> str:
    """Return a part so that addresses differ in spelling too, and NumPy's integers are plain."""
    if isinstance(part, str):
        return "str:" + part.replace("\\", "\\\\").replace("\n", "\\n")
    return f"int:{int(part)}"


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
    from importlib import metadata  # 15 ms, for which `weighin --help` need not wait

    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return None
