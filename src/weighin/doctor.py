"""`weighin doctor`: will this machine rebuild the same bytes, and has it what the commands need?"""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weighin.determinism import PINS
from weighin.machine import (
    NOT_YOURS,
    allows_unportable,
    instruction_sets,
    library_differences,
    output,
    processor,
    unportable,
    untrusted,
)
from weighin.parallel import cores

GB = 1e9
LEAST_DISK, LEAST_MEMORY = 2 * GB, 3 * GB
SHOWN = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile")
Level = Literal["ok", "note", "FAULT"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a FAULT means that the bytes may differ."""

    level: Level
    topic: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level:<6}{self.topic:<11}{self.text}" + (f"; {self.fix}" if self.fix else "")


def examine(project: Path) -> Iterator[Finding]:
    """Yield what there is to know of this machine and the project folder, in ten seconds."""
    yield _processor()
    yield _python()
    yield _pins()
    yield from _libraries(project / "requirements.lock")
    yield _golden_values()
    yield from _gpu()
    yield _room("disk", shutil.disk_usage(project).free, LEAST_DISK, "free some space")
    yield _room("memory", _memory(), LEAST_MEMORY, "close other programs, or use fewer workers")
    yield _git(project)
    yield _engine()


def _processor() -> Finding:
    reason = unportable()
    sets = " ".join(name for name in SHOWN if name in instruction_sets())
    text = f"{processor()}, {cores()} cores, {sets or 'no AVX2'}"
    if not reason:
        return Finding("ok", "processor", text)
    allowed = " (allowed by WEIGHIN_ALLOW_UNPORTABLE)" if allows_unportable() else ""
    return Finding("FAULT", "processor", f"{text}: {reason}{allowed}", "use x86-64 with AVX2")


def _python() -> Finding:
    text = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Finding("ok", "python", text)
    return Finding("FAULT", "python", f"{text}, not 3.11", "make setup, with Python 3.11")


def _pins() -> Finding:
    import torch

    level = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    text = f"torch computes with {level} on {threads} thread{'s' * (threads > 1)}"
    odd = [name for name, value in PINS.items() if os.environ.get(name) != value]
    if level == "AVX2" and threads == 1 and not odd:
        return Finding("ok", "pins", text)
    return Finding("FAULT", "pins", f"{text}; not as pinned: {', '.join(odd) or 'torch'}")


def _libraries(lock: Path) -> Iterator[Finding]:
    if not lock.exists():
        yield Finding("note", "libraries", f"there is no {lock.name} here", "run this in a project")
        return
    others = library_differences(lock)
    if not others:
        yield Finding("ok", "libraries", f"as {lock.name} says")
    for library in others:
        yield Finding("note", "libraries", str(library), "make setup")


def _golden_values() -> Finding:
    """Return how the values compare that every machine must compute alike."""
    from weighin.golden import differences

    if different := differences():
        text = f"computed otherwise here: {', '.join(different)}"
        return Finding("FAULT", "golden", text, "this machine does not rebuild the same bytes")
    return Finding("ok", "golden", "every golden value is computed as committed")


def _gpu() -> Iterator[Finding]:
    """Yield the GPU, where there is one: its bytes are those of no other model, driver, library."""
    from weighin.training.device import described, here

    if facts := here():
        yield Finding("ok", "gpu", f"{described(facts)}: recipe.device may be cuda")


def _room(topic: str, free: float, least: float, fix: str) -> Finding:
    text = f"{free / GB:,.1f} GB free"
    if free >= least:
        return Finding("ok", topic, text)
    return Finding("note", topic, f"{text}, under {least / GB:.0f} GB", fix)


def _memory() -> float:
    """Return the bytes that this process may still take, a container's limit included."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    return min(sizes["MemAvailable"], sizes["MemTotal"] if text == "max" else int(text))


def _git(project: Path) -> Finding:
    if not shutil.which("git"):
        return Finding("note", "git", "not installed", "install it: DVC and verify need it")
    identity = [_said(project, "git", "config", f"user.{part}") for part in ("name", "email")]
    named = all(f"GIT_{role}_NAME" in os.environ for role in ("AUTHOR", "COMMITTER"))
    if not _said(project, "git", "rev-parse", "--git-dir"):
        if trust := untrusted(project):
            return Finding("note", "git", NOT_YOURS, trust)
        return Finding("note", "git", "this folder is no repository", "git init && dvc init")
    if not (all(identity) or named):
        fix = "git config user.name NAME; git config user.email ADDRESS"
        return Finding("note", "git", "no identity, which `dvc exp run` needs", fix)
    return Finding("ok", "git", " ".join(identity) if all(identity) else "identity by GIT_*")


def _engine() -> Finding:
    found = next(filter(shutil.which, ("docker", "podman")), None)
    if found is None:
        text = "no docker or podman: only `make images` and `make grade` need one"
        return Finding("note", "engine", text)
    version = _said(Path(), found, "version", "--format", "{{.Client.Version}}")
    return Finding("ok", "engine", f"{found} {version}".strip())


def _said(folder: Path, *command: str) -> str:
    return output(*command, folder=folder, seconds=3) or ""
