"""Proof by doing it again: every stage rebuilt without any cache and compared with dvc.lock.

The rebuild happens in a temporary clone of the last commit, so what lies in the working tree cannot
help it. What is compared with is the dvc.lock of that commit. There are three verdicts:

    same                        every output has the recorded bytes, whatever is installed
    differs                     an output has other bytes, and nothing about this machine explains
                                it: the golden values agree, and a second rebuild of the stage gives
                                the same other bytes; or the record is of other inputs than the
                                commit's; or a file in the working tree was edited
    cannot be compared here     an output has other bytes, and this machine may be why: a golden
                                value that it computes otherwise, another version of a library,
                                other data, two rebuilds that differ; or a stage was computed by a
                                GPU, and this machine has not the same (then nothing is rebuilt)

Where the recorded output is at hand, in DVC's cache or its remote, the first difference is told:
stage, file, epoch or trial or tensor, and how far apart.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weighin.determinism import PINS
from weighin.errors import DataError, MachineError, MismatchError, ParamsError
from weighin.file_differences import first_difference
from weighin.files import from_yaml, read_yaml
from weighin.machine import (
    library_differences,
    locked_versions,
    processor,
    require_trusted,
    unportable,
)

Lock = Mapping[str, Mapping[str, Any]]
Verdict = Literal["same", "differs", "cannot be compared here"]
DVC = (sys.executable, "-m", "dvc")
QUIET = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0"}
UNKNOWN: Verdict = "cannot be compared here"
GRADE = "python -m weighin.grading submission/model.onnx data/test graded"
# printed by a pinned process of the clone's own code: the golden values that it computes otherwise
GOLDEN = """
import importlib.util, json
found = importlib.util.find_spec("weighin.golden")
print(json.dumps(__import__("weighin.golden", fromlist=["x"]).differences() if found else None))
"""


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
    """All rows, the verdict with its reasons, the first difference, and what else was seen."""

    rows: tuple[Row, ...]
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    difference: str | None = None
    notes: tuple[str, ...] = ()

    def table(self) -> list[str]:
        """Return the rows as lines of text, and the notes."""
        wide = max([len(row.path) for row in self.rows], default=6)
        lines = [f"{'stage':<10} {'output':<{wide}}  recorded    recomputed"]
        for row in self.rows:
            short = f"{row.recorded[:10]:<10}  {row.recomputed[:10]:<10}"
            same = "same" if row.same else "differs"
            lines.append(f"{row.stage:<10} {row.path:<{wide}}  {short}  {same}")
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def check(self) -> None:
        """Pass if all is the same.

        Raises:
            MismatchError: the record or a file differs; with the reasons that were found.
            MachineError: outputs differ, and this machine may be why.
        """
        if self.verdict == "same":
            return
        if not self.rows:
            fix = f"verify on such a machine, or grade it here instead: {GRADE}"
            raise MachineError(f"{UNKNOWN}: {'; '.join(self.reasons)}", fix)
        wrong = sum(not row.same for row in self.rows)
        what = f"{wrong} of {len(self.rows)} outputs differ from dvc.lock" if wrong else ""
        if self.verdict == UNKNOWN:
            what += ", but cannot be compared here"
        first = f"first difference: {self.difference}" if self.difference else ""
        problem = "\n".join(filter(None, [what, *self.reasons, first]))
        if self.verdict == "differs":
            fix = "`dvc checkout` restores what was edited; `dvc repro` records a new build"
            raise MismatchError(problem, fix)
        fix = "change what the lines above name, or verify on another machine (`weighin doctor`)"
        raise MachineError(problem, fix)


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
    names = [stage] if stage else list(recorded)
    if reason := _other_gpu(project, {name: recorded[name] for name in names}):
        return Proof((), UNKNOWN, (reason,))
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        _clone(project, clone)
        _bring_data(project, clone)
        if stage is not None:
            _bring_inputs(project, clone, recorded[stage])
        _rebuild(clone, stage, workers)
        return _Comparison(project, clone, recorded, names, workers).proof()


class _Comparison:
    """A rebuilt clone against the record: what differs, and why."""

    def __init__(
        self, project: Path, clone: Path, recorded: Lock, names: Sequence[str], workers: int | None
    ) -> None:
        self.project, self.clone, self.workers = project, clone, workers
        self.names, self.recorded, self.remade = names, recorded, _lock(clone)
        self.rows = tuple(row for name in names for row in self._rows(name))

    def proof(self) -> Proof:
        """Return the verdict; what takes long is only done where an output differs."""
        moved, (inputs, outputs) = list(self._moved()), self._edited()
        locked = library_differences(self.project / "requirements.lock")
        notes = (*inputs, *(f"another library: {library}" for library in locked))
        first = next((row for row in self.rows if not row.same), None)
        if first is None:
            verdict: Verdict = "differs" if outputs else "same"
            return Proof(self.rows, verdict, tuple(outputs), None, (*moved, *notes))
        difference = self._difference(first)
        golden = self._golden()
        here = [*inputs, *self._machine(golden or [])]
        # a package that is not installed computed nothing
        here += [f"another library: {one}" for one in locked if one.installed is not None]
        if not here and not moved and self._again(first) != first.recomputed:
            here = [f"two rebuilds of {first.path} on this machine differ from each other"]
        if here:
            return Proof(self.rows, UNKNOWN, (*here, *moved), difference, notes)
        reasons = moved or [_accusation(first.path, golden)]
        return Proof(self.rows, "differs", (*reasons, *outputs), difference, notes)

    def _rows(self, name: str) -> Iterator[Row]:
        entry = self.remade.get(name, {})
        remade = {out["path"]: out["md5"] for out in entry.get("outs", ())}
        for out in self.recorded[name].get("outs", ()):
            yield Row(name, out["path"], out["md5"], remade.get(out["path"], "none"))

    def _moved(self) -> Iterator[str]:
        """Yield what dvc.lock records otherwise than it was built with: code, data, parameters.

        Outputs of stages are left out: they have rows of their own.
        """
        made = {out["path"] for entry in self.recorded.values() for out in entry.get("outs", ())}
        seen: set[str] = set()
        for name in self.names:
            old, new = self.recorded[name], self.remade.get(name, {})
            before, after = ({d["path"]: d["md5"] for d in e.get("deps", ())} for e in (old, new))
            for path in sorted((before.keys() | after.keys()) - made - seen):
                if before.get(path) != after.get(path):
                    seen.add(path)
                    yield f"dvc.lock records another {path} than this commit holds"
            if old.get("params") != new.get("params"):
                yield f"dvc.lock records other parameters of {name} than this commit holds"

    def _edited(self) -> tuple[list[str], list[str]]:
        """Return which inputs of the rebuild and which outputs here are not those recorded."""
        entries = [self.recorded[name] for name in self.names]
        deps = {dep["path"] for entry in entries for dep in entry.get("deps", ())}
        outs = {out["path"] for entry in entries for out in entry.get("outs", ())}
        inputs, outputs = [], []
        text = _run(self.project, *DVC, "status", "--json")
        for stage, changes in json.loads(text or "{}").items():
            for change in changes if isinstance(changes, list) else ():
                found = change.get("changed outs", {}) if isinstance(change, dict) else {}
                for path in (path for path, what in found.items() if what == "modified"):
                    if stage.endswith(".dvc"):
                        inputs.append(f"{path} here is not the one that {stage} names")
                    elif path in outs:
                        outputs.append(
                            f"{path} was edited after {stage} made it, or is an experiment's"
                        )
                    elif path in deps:
                        inputs.append(f"{path} here is not the one that {stage} made")
        return inputs, outputs

    def _machine(self, golden: Sequence[str]) -> Iterator[str]:
        """Yield what this machine, or the one that built, may compute otherwise than promised."""
        from weighin.report.provenance import libraries
        from weighin.report.signing import build_machine

        if unportable():
            yield f"this machine computes other bytes than the promised ones: {unportable()}"
        yield from (f"a golden value is computed otherwise here: {name}" for name in golden)
        built = build_machine(self.project / "submission/provenance.json")
        if built is None:
            return
        if built.get("unportable"):
            yield f"the record was made on {built['processor']}: {built['unportable']}"
        installed, lock = libraries(), self.project / "requirements.lock"
        for name in locked_versions(lock):
            here, there = installed.get(name), built["libraries"].get(name)
            if here and there and here.split("+")[0] != there.split("+")[0]:
                yield f"another library: {name} {here} is installed, the record was made by {there}"

    def _golden(self) -> list[str] | None:
        """Return the golden values that this machine computes otherwise; None: there are none."""
        text = _run(self.clone, sys.executable, "-c", GOLDEN, env=_own_code(self.clone) | PINS)
        found: list[str] | None = json.loads(text.splitlines()[-1])
        return found

    def _again(self, row: Row) -> str:
        """Return what a second rebuild of an output's stage gives, on the inputs of the first."""
        _rebuild(self.clone, row.stage, self.workers)
        outs = _lock(self.clone)[row.stage].get("outs", ())
        return next((out["md5"] for out in outs if out["path"] == row.path), "none")

    def _difference(self, row: Row) -> str:
        """Return where an output parts from the recorded one, if that is at hand."""
        where = f"stage {row.stage}, {row.path}"
        with tempfile.TemporaryDirectory() as name:
            old = self._recorded_output(row, Path(name) / "recorded")
            if old is None:
                return f"{where} (the recorded one is not in DVC's cache or remote)"
            found = first_difference(old, self.clone / row.path)
            return f"{where}{'/' if old.is_dir() else ': '}{found}"

    def _recorded_output(self, row: Row, place: Path) -> Path | None:
        """Return an output as dvc.lock records it, in a clone that shares the project's cache."""
        _clone(self.project, place)
        cache = _run(self.project, *DVC, "cache", "dir").strip()
        _run(place, *DVC, "cache", "dir", "--local", cache)
        checkout = (*DVC, "checkout", "--quiet", "--allow-missing", row.path)
        _try(place, *checkout)
        if not (place / row.path).exists():
            _try(self.project, *DVC, "fetch", "--quiet", row.stage)
            _try(place, *checkout)
        return place / row.path if (place / row.path).exists() else None


def _other_gpu(project: Path, recorded: Lock) -> str:
    """Return why this machine cannot rebuild what a GPU computed; empty where it can.

    A GPU's bytes hold for its model, its driver and its libraries.
    """
    from weighin.report.provenance import recorded_gpus
    from weighin.training.device import described, here

    gpus = recorded_gpus(project / "submission/provenance.json")
    built = [facts for stage, facts in gpus.items() if stage in recorded]
    params = [entry.get("params", {}).get("params.yaml", {}) for entry in recorded.values()]
    if not built and all(each.get("recipe", {}).get("device") != "cuda" for each in params):
        return ""
    if built and all(facts == here() for facts in built):
        return ""
    first = next((facts for facts in built if facts != here()), None)
    what = described(first) if first else "a GPU that no submission/provenance.json here names"
    return f"built on {what}, this is {described(here())}"


def _accusation(path: str, golden: list[str] | None) -> str:
    if golden is None:
        return (
            f"two rebuilds give the same other {path}; there are no golden values that tell "
            "whether this machine or the record is wrong"
        )
    return (
        f"the record is wrong: the golden values agree on this machine ({processor()}), and two "
        f"rebuilds of the same inputs give the same other {path}"
    )


def _committed_lock(project: Path) -> Lock:
    """Return the stages of the last commit's dvc.lock, in the order of its dvc.yaml."""
    found = []
    for name in ("dvc.lock", "dvc.yaml"):
        text = _try(project, "git", "show", f"HEAD:./{name}")
        if text is None:
            require_trusted(project)
            fix = "commit what `dvc repro` wrote: git add dvc.lock && git commit"
            raise DataError("the last commit has no dvc.lock", fix)
        found.append(from_yaml(text.encode(), name)["stages"])
    lock, order = found
    return {name: lock[name] for name in (*order, *lock) if name in lock}


def _lock(clone: Path) -> Lock:
    found: Lock = read_yaml(clone / "dvc.lock")["stages"]
    return found


def _clone(project: Path, place: Path) -> None:
    _run(project, "git", "clone", "--quiet", "--no-hardlinks", str(project.absolute()), place)


def _run(folder: Path, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
    done = _done(folder, command, env)
    if done.returncode:
        words = " ".join(str(part) for part in command[:4])
        raise DataError(f"`{words}` failed ({done.returncode})", "see what it printed above")
    return done.stdout


def _try(folder: Path, *command: str | Path) -> str | None:
    """Return what a command prints, None where it fails; what it complains of is not shown."""
    done = _done(folder, command, stderr=subprocess.DEVNULL)
    return None if done.returncode else done.stdout


def _done(
    folder: Path,
    command: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    stderr: int | None = None,
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **QUIET, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def _bring_data(project: Path, clone: Path) -> None:
    """Lay data/, and what other .dvc files name, into the clone as it lies in the project."""
    if not (project / "data").exists():
        raise DataError("data/ is not there", "run `weighin fetch` first")
    _copy(project / "data", clone / "data")
    for record in clone.rglob("*.dvc"):
        place = record.with_suffix("").relative_to(clone)
        if record.is_file() and not (clone / place).exists() and (project / place).exists():
            _copy(project / place, clone / place)


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
    shutil.rmtree(clone / ".weighin", ignore_errors=True)  # what an earlier rebuild kept
    single = ["--single-item", stage] if stage else []
    env = _own_code(clone)
    if workers is not None:
        env["WEIGHIN_WORKERS"] = str(workers)
    _run(clone, *DVC, "repro", "--force", "--no-run-cache", *single, env=env)


def _own_code(clone: Path) -> dict[str, str]:
    """Return the variables that make this interpreter run the clone's own code."""
    return {
        "PYTHONPATH": os.pathsep.join((str(clone / "src"), str(Path(__file__).parents[1]))),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
