"""What surrounds every stage of the pipeline: pins, parameters, scratch space, plain errors.

`dvc.yaml` says what a stage depends on, and that is taken at its word: a parameter section that it
does not name cannot be read, and scratch space belongs to exactly those contents and values.

To DVC `search.network: net.yaml` is a text. So that an edit of a file that a parameter names reruns
what reads it, the stage `inputs` runs whenever the pipeline does, copies each named file and writes
its hash into work/inputs/<section>.json; the stages that read the file depend on that. What comes
with the package is known by its name alone: its content is code.
"""

import atexit
import contextlib
import dataclasses
import functools
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from weighin.determinism import PINS, restart_with
from weighin.errors import DataError, ParamsError, WeighinError
from weighin.machine import output, require_portable

if TYPE_CHECKING:
    from weighin.params import Params

PIPELINE, PARAMS = Path("dvc.yaml"), Path("params.yaml")
SCRATCH = Path(".weighin/scratch")
INTERRUPTED = 130  # what a shell says of a command that an interrupt ended
PACKAGE = Path(__file__).parent
SHIPPED = {"search.network": "network/rows", "search.space": "search/spaces"}
NAMED = ("contest.score", *SHIPPED, "train.weights")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One run of a stage: its parameters, and a folder whose content survives a kill."""

    name: str
    params: "Params"
    entry: Mapping[str, Any]  # what dvc.yaml says of it

    @functools.cached_property
    def scratch(self) -> Path:
        """The folder; the stage's inputs, which name it, are hashed where it is asked for."""
        path = SCRATCH / self.name / stage_fingerprint(self.entry)
        path.mkdir(parents=True, exist_ok=True)
        return path


class Undeclared:
    """Stands for a parameter section that dvc.yaml does not give to a stage."""

    def __init__(self, stage: str, section: str) -> None:
        self._stage, self._section = stage, section

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the stage {self._stage} reads {self._section}.{name}; name {self._section} among its "
            "params in dvc.yaml"
        )


def main(body: Callable[[Stage], None], pinned: bool = True) -> None:
    """Run `body` as the stage whose file this process was started with, and exit.

    The interpreter is restarted once where it lacks the pins, or imported another `weighin` than
    the one in the project: a queued or temporary experiment is a copy of the project with code of
    its own, and that code is what it records.
    """
    name = Path(sys.argv[0]).stem
    leave(exit_code(lambda: _start(name, body, pinned)))


def _start(name: str, body: Callable[[Stage], None], pinned: bool) -> None:
    restart_with((PINS if pinned else {}) | _own_source())
    require_portable()
    run(name, body)


def _own_source() -> dict[str, str]:
    """Return the variable that makes Python import the `weighin` under the working folder."""
    own = Path("src").absolute()
    if not (own / "weighin/stage.py").is_file() or (own / "weighin/stage.py").samefile(__file__):
        return {}
    others = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if others[:1] == [str(own)]:
        fix = "start Python without the options -E and -I"
        raise WeighinError(f"Python does not import weighin from {own}", fix)
    return {"PYTHONPATH": os.pathsep.join([str(own), *others])}


def run(name: str, body: Callable[[Stage], None]) -> None:
    """Run `body` as the stage `name` of the project in the working directory.

    Scratch space is left where it is if `body` does not end well, and found again by the next run
    of the same stage on the same contents; it goes when the stage is done.
    """
    from weighin.params import load

    entry = declaration(name)
    params = restricted(load(PARAMS), name, entry)
    body(Stage(name, params, entry))
    shutil.rmtree(SCRATCH / name, ignore_errors=True)


def exit_code(body: Callable[[], None]) -> int:
    """Run `body` and return the process's exit code; a problem is printed, not its traceback."""
    with _interrupts() as seen:
        try:
            body()
        except (Exception, KeyboardInterrupt) as error:
            # an interrupt may end as another error: in the middle of an import, or where it
            # reached a program that `body` ran
            if seen or isinstance(error, KeyboardInterrupt):
                print("interrupted; run the same command again to go on", file=sys.stderr)
                return INTERRUPTED
            if not isinstance(error, WeighinError):
                error = _of_file(error)
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    return 0


def _of_file(error: BaseException) -> WeighinError:
    """Return the error of a file that cannot be read or found; what is none of these is a bug."""
    if not isinstance(error, OSError) or error.filename is None:
        raise error
    name = error.filename if isinstance(error.filename, int) else os.fsdecode(error.filename)
    fix = "check that it exists and that you may read it, then run the same command again"
    return DataError(f"{name}: {error.strerror or error}", fix)


def leave(code: int) -> NoReturn:
    """End the process; after an interrupt at once, for torch takes seconds to unload."""
    if code != INTERRUPTED:
        sys.exit(code)
    atexit._run_exitfuncs()  # clears what multiprocessing laid into the temporary folder
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Yield a list that remembers an interrupt; a process that is to ignore them still does."""
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def declaration(name: str) -> Mapping[str, Any]:
    """Return what dvc.yaml says of a stage.

    Raises:
        ParamsError: it has no such stage.
    """
    from weighin.files import read_yaml

    stages = read_yaml(PIPELINE)["stages"]
    if name not in stages:
        raise ParamsError(f"{PIPELINE} has no stage {name}", f"add it to {PIPELINE}")
    entry: Mapping[str, Any] = stages[name]
    return entry


def restricted(params: "Params", name: str, entry: Mapping[str, Any]) -> "Params":
    """Return `params` with each section that the stage does not name put out of reach."""
    named = {str(key).partition(".")[0] for key in entry.get("params", ())}
    hidden = {
        field.name: Undeclared(name, field.name)
        for field in dataclasses.fields(params)
        if field.name not in named
    }
    return dataclasses.replace(params, **hidden)  # type: ignore[arg-type]


def stage_fingerprint(entry: Mapping[str, Any]) -> str:
    """Return what stands for the contents and the values that a stage depends on."""
    from weighin.files import fingerprint, read_yaml, sha256_tree

    values = read_yaml(PARAMS)
    return fingerprint(
        {
            "command": entry["cmd"],
            "deps": {path: sha256_tree(Path(path)) for path in entry.get("deps", ())},
            "params": {key: _value(values, key) for key in entry.get("params", ())},
        }
    )


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part)  # one that an older file does not hold has its default
    return values


# --- the files that parameters name


@dataclasses.dataclass(frozen=True)
class NamedFile:
    """A parameter that names a file, and the file, or None for what comes with the package."""

    parameter: str
    name: str
    path: Path | None

    def facts(self) -> dict[str, str]:
        """Return the name, and the hash of a file of one's own."""
        from weighin.files import sha256_file

        return {"name": self.name} | ({"sha256": sha256_file(self.path)} if self.path else {})


def named_files(params: "Params") -> list[NamedFile]:
    """Return what the parameters that are in use name.

    Raises:
        ParamsError: a named file is not there.
    """
    search = params.search
    used = {
        "contest.score": params.contest.score,
        "search.network": None if search.enabled else search.network,
        "search.space": search.space if search.enabled else None,
        "train.weights": params.train.weights,
    }
    return [_found(parameter, name) for parameter, name in used.items() if name is not None]


def _found(parameter: str, name: str) -> NamedFile:
    folder = SHIPPED.get(parameter)
    shipped = sorted(path.stem for path in (PACKAGE / folder).glob("*.yaml")) if folder else []
    if name in shipped or (parameter == "contest.score" and not name.endswith(".py")):
        return NamedFile(parameter, name, None)
    if not Path(name).is_file():
        what = "a folder" if Path(name).is_dir() and name else "no file"
        others = f"neither a file here nor one of {', '.join(shipped)}" if shipped else what
        raise ParamsError(
            f"{parameter} is {name}: {others}",
            f"write {name}, or name another; a queued or temporary experiment holds only what Git "
            f"tracks: {_tracking(parameter)} {shlex.quote(name)}",
        )
    return NamedFile(parameter, name, Path(name))


def record_files(params: "Params", out: Path) -> None:
    """Write the folder `out`: a JSON file for each section that names files, and their copies.

    Raises:
        ParamsError: a named file is not there.
        OutputError: `out` cannot be written.
    """
    from weighin.files import NEW, replace_folder, write_json
    from weighin.progress import say

    sections: dict[str, dict[str, Any]] = {name.split(".")[0]: {} for name in NAMED}
    files = named_files(params)
    with replace_folder(out) as draft:
        (draft / NEW).mkdir()
        for file in files:
            section, _, key = file.parameter.partition(".")
            sections[section][key] = file.facts()
            if file.path is not None:
                shutil.copyfile(file.path, draft / NEW / f"{file.parameter}{file.path.suffix}")
        for section, facts in sections.items():
            write_json(draft / NEW / f"{section}.json", facts)
    for file in files:
        if file.path is not None and _is_untracked(file.path):
            say(
                f"{file.parameter}: {file.name} is not tracked; `{_tracking(file.parameter)} "
                f"{shlex.quote(file.name)}`, for `weighin verify` and for queued experiments"
            )


def _tracking(parameter: str) -> str:
    """Return the command that tracks a file: DVC's for weights, which are large and binary."""
    return "dvc add" if parameter == "train.weights" else "git add"


def _is_untracked(path: Path) -> bool:
    """Whether a file lies in a Git repository, and neither Git nor DVC tracks it."""
    if path.with_name(f"{path.name}.dvc").exists():
        return False
    return bool(output("git", "ls-files", "--others", "--", str(path)))
