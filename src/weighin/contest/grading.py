"""One submission graded by the grader's own code, apart from everything else, and never twice.

It runs as `python -m weighin.grading` in a process of its own, or the same code in the hardened
container of docker/grade.sh. It is never told the truth: what is graded could otherwise learn it.
What comes out is not believed either: a model that took over the grader could have written it. A
finished result is kept in a folder under a name made of all that decides it, so that a board that
was interrupted goes on where it was.

Commands that work on strangers' files run within bounds of time and of what they write. Memory and
processes are bounded by the container, or by the grader's own limits; `bounded` is for what gets
past those: a command that does not end, or that fills the disk.
"""

import contextlib
import csv
import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Annotated, Any

from weighin.contest.submissions import Submission, plain, read_model
from weighin.errors import DataError, WeighinError
from weighin.files import (
    fingerprint,
    read_json,
    sha256,
    sha256_tree,
    source_hash,
    write_bytes,
    write_json,
)
from weighin.grading.grade import HEADER
from weighin.grading.limits import Limits
from weighin.grading.score import Cost
from weighin.machine import output
from weighin.validation import Section, check_value, parameter, read

KILLED = "too much memory"  # 137 and -9: by the system, which does not say so
STATES = {7: "hidden work", 8: "refused", 9: "no output", 12: "too slow", 13: KILLED}
STATES |= {137: KILLED, -9: KILLED}
OVER = {"time": "too slow", "output": "too much output", "stopped": "crashed"}
STARVED = re.compile(  # what libraries and Python say of no memory, each in its own way
    "failed to map segment|[Mm]emory allocation|MemoryError|bad_alloc|Cannot allocate memory"
    "|error return without exception set"
)
GRACE = 30.0  # seconds over a submission's own limit, for the start of the grader or the container
ENGINE_FAILS = 125  # exit code of `docker run` where it cannot start a container
MAX_OUTPUT = 100_000_000  # bytes of grade.json or submission.csv
COUNTED = tuple(each.name for each in fields(Cost) if each.name != "bytes")
FIX = "  to fix: "
MAX_SAID = 500  # characters of a grader's message
MAX_WRITTEN = 200_000_000  # bytes in the folder that a command may write to
MAX_MESSAGE = 1_000_000  # bytes that it may write to standard error
KEPT_MESSAGE = 4_000  # bytes at its end that are kept
PAUSE = 0.25  # seconds between two looks


@dataclass(frozen=True)
class Costs(Section):
    """What the grader counted and measured of a model."""

    macs: Annotated[int, parameter("", low=0, high=1e18)]
    parameters: Annotated[int, parameter("", low=0, high=1e18)]
    images_per_second: Annotated[float, parameter("", low=0)]
    closest_call: float | None  # the smallest margin between two classes
    unreadable: Annotated[int, parameter("", low=0)]  # images, which get the fallback class
    memory: Annotated[int, parameter("", low=0, high=1e18)] = 0  # this and what follows: score.Cost
    parameter_bits: Annotated[int, parameter("", low=0, high=1e18)] = 0
    multiply_bits: Annotated[int, parameter("", low=0, high=9e18)] = 0

    def of_file(self, size: int) -> Cost:
        """Return what a contest scores of a file of so many bytes."""
        return Cost(bytes=size, **{name: getattr(self, name) for name in COUNTED})


@dataclass(frozen=True)
class Result(Section):
    """What grading a model found, as a file keeps it: figures and labels, or why there are none."""

    state: str  # graded, crashed, or one of STATES and OVER
    said: str = ""
    fix: str = ""
    costs: Costs | None = None
    classes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a submission: its costs and labels, or the sentence why there are none."""

    team: str
    state: str  # graded, malformed, crashed, or one of STATES and OVER
    said: str = ""
    fix: str = ""  # what its authors can do
    sha256: str = ""  # of the ONNX file
    bytes: int = 0
    costs: Costs | None = None
    classes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)  # {file name: class}
    notes: tuple[str, ...] = ()  # what its authors should know of its figures

    @property
    def is_graded(self) -> bool:
        """Return whether it has figures."""
        return self.costs is not None


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or what it had too much of; and its last words."""

    code: int
    over: str  # "", "time", "output", or "stopped" where another thread asked for that
    said: str


@dataclass(frozen=True)
class Grader:
    """How submissions are graded: on which images, within which limits, where."""

    test: Path
    limits: Limits
    image: str | None = None  # of the container; None: a process of this machine
    stopped: Event = field(default_factory=Event, compare=False)  # set, it ends what is running

    @cached_property
    def key(self) -> dict[str, Any]:
        """Return what decides a result beside the model.

        Raises:
            DataError: no engine has the image.
        """
        code = image_id(self.image) if self.image else source_hash("grading", "contest")
        if code is None:
            problem = f"no container engine has the image {self.image}"
            fix = "run `make images`, or leave out --container to grade in processes"
            raise DataError(problem, fix)
        return {"test": sha256_tree(self.test), "limits": asdict(self.limits), "code": code}

    def run(self, model: Path, out: Path) -> Ended:
        """Grade a model into the folder `out`."""
        seconds, memory = self.limits.seconds, self.limits.memory // 2**20
        options = ("--seconds", f"{seconds:g}", "--memory", str(memory))
        paths = (str(model), str(self.test), str(out))
        if self.image is None:
            command = (sys.executable, "-m", "weighin.grading", *paths, *options)
            return bounded(command, seconds + GRACE, out, self.stopped)
        name = container_name()
        told = {"MEMORY": f"{memory}m", "OPTIONS": " ".join(options), "CONTAINER": name}
        script = ("sh", str(_script()), self.key["code"], *paths)
        return bounded(script, seconds + GRACE, out, self.stopped, container=name, environment=told)


def grade_submission(submission: Submission, grader: Grader, folder: Path) -> Outcome:
    """Return what came of a submission, from `folder` where it was graded before.

    Raises:
        DataError: no engine has the grader's image.
    """
    try:
        model = read_model(submission.path)
    except WeighinError as error:
        return Outcome(submission.team, "malformed", error.problem, error.fix)
    digest = sha256(model)
    kept = folder / f"{fingerprint({'model': digest, **grader.key})}.json"
    found = _kept(kept)
    if found is None:
        found = _graded(model, grader)
        if found.state != "crashed":  # that may be the machine's fault
            write_json(kept, asdict(found))
    return Outcome(submission.team, sha256=digest, bytes=len(model), **vars(found))


def _kept(path: Path) -> Result | None:
    """Return the result in a file; None where there is none, or it was cut or changed."""
    try:
        values = read_json(path)
    except (OSError, ValueError, RecursionError):
        return None
    found, faults = check_value(Result, values, path.name)
    whole = not faults and (found.state == "graded") is (found.costs is not None)
    return found if whole else None


def _graded(model: bytes, grader: Grader) -> Result:
    with tempfile.TemporaryDirectory(prefix="weighin-", ignore_cleanup_errors=True) as name:
        place, out = Path(name), Path(name) / "out"
        out.mkdir()
        write_bytes(place / "model.onnx", model)
        ended = grader.run(place / "model.onnx", out)
        said, fix = _sentence(ended.said)
        if ended.over:
            return Result(OVER[ended.over], f"it was ended: {_too_much(ended, grader)}")
        if ended.code == ENGINE_FAILS and grader.image and image_id(grader.image) is None:
            raise DataError(f"the container engine fails: {said}", "start it, then run this again")
        if ended.code:
            killed = STATES.get(ended.code) == KILLED and not ended.said.strip()
            said = "the system ended it, most likely for want of memory" if killed else said
            if ended.code not in STATES and STARVED.search(ended.said):  # while it was imported
                said = f"the grader does not start within {grader.limits.memory // 2**20:,} MB"
                return Result(KILLED, said, "raise --memory, or free memory of the machine")
            return Result(STATES.get(ended.code, "crashed"), said, fix)
        try:
            return _output(out)
        except (WeighinError, ValueError, LookupError, TypeError, RecursionError, csv.Error):
            return Result("crashed", "what the grader wrote is not what it writes")


def _too_much(ended: Ended, grader: Grader) -> str:
    if ended.over == "time":
        return f"it takes more than the {grader.limits.seconds:g} s it may take"
    return "it writes more than it may" if ended.over == "output" else "the board was interrupted"


def _output(out: Path) -> Result:
    """Return the result in a grader's output, each part of its kind and in its range."""
    facts = json.loads(plain(out / "grade.json", MAX_OUTPUT))
    model, unreadable = facts["model"], facts["unreadable"]
    costs = {
        **{name: model[name] for name in COUNTED},
        "images_per_second": facts["speed"]["images_per_second"],
        "closest_call": facts["margin"]["smallest"],
        "unreadable": len(unreadable),
    }
    text = plain(out / "submission.csv", MAX_OUTPUT).decode()
    header, *rows = csv.reader(io.StringIO(text))
    labels = dict(rows)
    classes = [name for name in model["classes"] if isinstance(name, str)]
    "".join(classes).encode()  # no halves of characters, which no file can hold
    if tuple(header) != HEADER or len(labels) != len(rows) or len(classes) < 2:
        raise ValueError("not a table of one label a file")
    checked = read(Costs, costs, "")
    return Result("graded", costs=checked, classes=tuple(classes), labels=labels)


def _sentence(said: str) -> tuple[str, str]:
    """Return a grader's error and its fix, without paths of this machine and control characters."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    text = errors[0].removeprefix("error: ") if errors else "it ended without a word"
    head, colon, rest = text.partition(": ")
    text = rest if colon and head.endswith(".onnx") else text
    fix = next((line.removeprefix(FIX) for line in lines if line.startswith(FIX)), "")
    return _shown(text), _shown(fix)


def _shown(text: str) -> str:
    return "".join(char for char in text if char.isprintable())[:MAX_SAID]


def _script() -> Path:
    """Return docker/grade.sh of the checkout that this code is in, or of the folder here."""
    places = (Path(__file__).parents[3], Path())
    found = [place / "docker/grade.sh" for place in places]
    for path in found:
        if path.is_file():
            return path
    raise DataError(f"{found[-1]} is not here", "run this in the project's folder")


# --- commands within bounds


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
