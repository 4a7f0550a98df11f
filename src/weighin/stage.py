"""What surrounds every stage of the pipeline: pins, parameters, scratch space, plain errors.

`dvc.yaml` says what a stage depends on, and that is taken at its word: a parameter section that it
does not name cannot be read, and scratch space belongs to exactly those contents and values.
"""

import atexit
import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from weighin.determinism import PINS, restart_with
from weighin.errors import DataError, ParamsError, WeighinError

if TYPE_CHECKING:
    from weighin.params import Params

PIPELINE, PARAMS = Path("dvc.yaml"), Path("params.yaml")
SCRATCH = Path(".weighin/scratch")
INTERRUPTED = 130  # what a shell says of a command that an interrupt ended


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
    from weighin.determinism import require_portable

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
