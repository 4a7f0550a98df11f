"""Proof by doing it again: every stage rebuilt without any cache and compared with dvc.lock.

The rebuild happens in a temporary clone of the last commit, so what lies in the working tree cannot
help it. What is compared with is the dvc.lock of that commit. Where the two differ, the reason is
looked for: another library, another input, an output or a record that was edited.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weighin.errors import DataError, MismatchError, ParamsError
from weighin.yaml_files import read_yaml

Lock = Mapping[str, Mapping[str, Any]]
LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)
QUIET = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0"}


@dataclass(frozen=True)
class Row:
    """One output: what is recorded of it, and what the rebuild gave."""

    stage: str
    path: str
    recorded: str
    recomputed: str

    @property
    def same(self) -> bool:
        """Whether the rebuild gave the recorded bytes."""
        return self.recorded == self.recomputed


@dataclass(frozen=True)
class Proof:
    """All rows, and why some of them differ."""

    rows: tuple[Row, ...]
    reasons: tuple[str, ...]

    def table(self) -> list[str]:
        """Return the rows as lines of text."""
        wide = max([len(row.path) for row in self.rows], default=6)
        lines = [f"{'stage':<10} {'output':<{wide}}  recorded    recomputed"]
        for row in self.rows:
            verdict = "same" if row.same else "NOT the same"
            short = f"{row.recorded[:10]:<10}  {row.recomputed[:10]:<10}"
            lines.append(f"{row.stage:<10} {row.path:<{wide}}  {short}  {verdict}")
        return lines

    def check(self) -> None:
        """Pass if all is the same.

        Raises:
            MismatchError: with the reasons that were found.
        """
        wrong = [row for row in self.rows if not row.same]
        if wrong or self.reasons:
            what = f"{len(wrong)} of {len(self.rows)} outputs are not what dvc.lock records"
            problem = "\n".join([what, *self.reasons])
            raise MismatchError(problem, "see the reasons above; `dvc repro` records a new build")


def verify(project: Path, stage: str | None = None, workers: int | None = None) -> Proof:
    """Return the comparison of the last commit's dvc.lock with a rebuild of it.

    With `stage`, that one is rebuilt alone, on the inputs that lie in the working tree.

    Raises:
        DataError: no Git commit with a dvc.lock, no data, or a stage fails.
    """
    recorded = _committed_lock(project)
    if stage is not None and stage not in recorded:
        known = ", ".join(recorded)
        raise ParamsError(f"dvc.lock has no stage {stage}", f"name one of {known}")
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        _run(project, "git", "clone", "--quiet", "--no-hardlinks", str(project.absolute()), clone)
        _bring_data(project, clone)
        if stage is not None:
            _bring_inputs(project, clone, recorded[stage])
        _rebuild(clone, stage, workers)
        remade = read_yaml(clone / "dvc.lock")["stages"]
    names = [stage] if stage else list(recorded)
    rows = tuple(row for name in names for row in _rows(name, recorded[name], remade.get(name, {})))
    reasons = [*_libraries(project), *_inputs(recorded, remade, names), *_edited(project)]
    forged = [row.path for row in rows if not row.same]
    if forged and not reasons:
        reasons.append(
            f"the record itself is wrong: the same inputs and libraries give another {forged[0]}"
        )
    return Proof(rows, tuple(reasons))


def _committed_lock(project: Path) -> dict[str, Mapping[str, Any]]:
    done = subprocess.run(
        ["git", "show", "HEAD:./dvc.lock"], cwd=project, capture_output=True, text=True
    )
    if done.returncode:
        fix = "commit what `dvc repro` wrote: git add dvc.lock && git commit"
        raise DataError("the last commit has no dvc.lock", fix)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "dvc.lock"
        path.write_text(done.stdout, encoding="utf-8")
        return dict(read_yaml(path)["stages"])


def _run(folder: Path, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **QUIET, **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        words = " ".join(str(part) for part in command[:4])
        raise DataError(f"`{words}` failed ({done.returncode})", "see what it printed above")
    return done.stdout


def _bring_data(project: Path, clone: Path) -> None:
    """Lay data/ into the clone as it lies in the project; nothing in it is ever written to."""
    source = project / "data"
    if not source.exists():
        fix = "run `weighin fetch` first"
        raise DataError("data/ is not there", fix)
    _copy(source, clone / "data")


def _bring_inputs(project: Path, clone: Path, entry: Mapping[str, Any]) -> None:
    for dep in entry.get("deps", ()):
        target, source = clone / dep["path"], project / dep["path"]
        if not target.exists() and source.exists():
            _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _rebuild(clone: Path, stage: str | None, workers: int | None) -> None:
    single = ["--single-item", stage] if stage else []
    env = {
        # the clone's own code, run by this interpreter
        "PYTHONPATH": str(clone / "src"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    if workers is not None:
        env["WEIGHIN_WORKERS"] = str(workers)
    dvc = (sys.executable, "-m", "dvc")
    _run(clone, *dvc, "repro", "--force", "--no-run-cache", *single, env=env)


def _rows(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Row]:
    remade = {out["path"]: out["md5"] for out in new.get("outs", ())}
    for out in old.get("outs", ()):
        yield Row(name, out["path"], out["md5"], remade.get(out["path"], "none"))


def _inputs(old: Lock, new: Lock, names: Sequence[str]) -> Iterator[str]:
    """Yield the inputs that are no output of a stage and differ from what is recorded."""
    made = {out["path"] for entry in old.values() for out in entry.get("outs", ())}
    seen: set[str] = set()
    for name in names:
        before = {dep["path"]: dep["md5"] for dep in old[name].get("deps", ())}
        after = {dep["path"]: dep["md5"] for dep in new.get(name, {}).get("deps", ())}
        for path in sorted((before.keys() | after.keys()) - made - seen):
            if before.get(path) != after.get(path):
                seen.add(path)
                yield f"an input has changed since it was recorded: {path}"
        if old[name].get("params") != new.get(name, {}).get("params"):
            yield f"the parameters of {name} have changed since they were recorded"


def _libraries(project: Path) -> Iterator[str]:
    """Yield the installed versions that are not those of requirements.lock."""
    path = project / "requirements.lock"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for name, locked in LOCKED.findall(text):
        try:
            own = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            yield f"another library: {name} is not installed, requirements.lock says {locked}"
            continue
        if own != locked.split("+")[0]:
            yield f"another library: {name} {own} is installed, requirements.lock says {locked}"


def _edited(project: Path) -> Iterator[str]:
    """Yield the outputs in the working tree that are not those of its dvc.lock."""
    text = _run(project, sys.executable, "-m", "dvc", "status", "--json")
    for stage, changes in json.loads(text or "{}").items():
        for change in changes if isinstance(changes, list) else ():
            outs = change.get("changed outs", {}) if isinstance(change, dict) else {}
            for path, what in outs.items():
                if what == "modified":
                    yield f"an output was edited after {stage} made it: {path}"
