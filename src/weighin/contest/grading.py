"""One submission graded by the grader's own code, apart from everything else, and never twice.

`in_process` runs `python -m weighin.grading` in a process of its own, with limits of time, memory
and output; `in_container` runs the same code in the hardened container of docker/grade.sh. Neither
is told the truth: what is graded could otherwise learn it. A finished result is kept in a folder
that is named by what decides it, so that a board that was interrupted goes on where it was.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from weighin.contest.submissions import Submission, read_model
from weighin.errors import DataError, OutputError, WeighinError
from weighin.files import (
    fingerprint,
    read_json,
    sha256,
    sha256_tree,
    source_hash,
    write_bytes,
    write_json,
)
from weighin.label_csv import read_labels

STATES = {7: "hidden work", 8: "refused", 9: "no output", 12: "too slow", 13: "too much memory"}
OURS = {2, 4, 5}  # wrong usage, contest or images: not a submission's fault
GRACE = 30.0  # seconds over a submission's own limit, for the start of the grader or the container
MAX_SAID = 4000  # characters of a grader's message that are kept
SCRIPT = Path("docker/grade.sh")


@dataclass(frozen=True)
class Outcome:
    """What came of a submission: its figures and answers, or the sentence why there are none."""

    team: str
    state: str  # graded, refused, hidden work, too slow, too much memory, crashed, malformed
    said: str
    sha256: str = ""  # of the ONNX file
    bytes: int = 0
    facts: dict[str, Any] | None = None  # of grade.json
    labels: dict[str, str] | None = None  # {file name: class}

    @property
    def is_graded(self) -> bool:
        """Return whether it has figures."""
        return self.state == "graded"

    @property
    def costs(self) -> dict[str, Any] | None:
        """Return what grade.json says of the model and of its speed; None where there is none."""
        if self.facts is None:
            return None
        return {
            "macs": self.facts["model"]["macs"],
            "parameters": self.facts["model"]["parameters"],
            "images_per_second": self.facts["speed"]["images_per_second"],
            "closest_call": self.facts["margin"]["smallest"],
            "unreadable": len(self.facts["unreadable"]),
        }


@dataclass(frozen=True)
class Limits:
    """What one submission may take."""

    seconds: float | None = None  # None: the grader's own, which grows with the images
    memory: int = 4096  # MB

    def options(self) -> tuple[str, ...]:
        """Return the grader's options that say so."""
        seconds = () if self.seconds is None else ("--seconds", str(self.seconds))
        return (*seconds, "--memory", str(self.memory))


Runner = Callable[[Path, Path, Path, Limits], "subprocess.CompletedProcess[str]"]


def in_process(
    model: Path, test: Path, out: Path, limits: Limits
) -> "subprocess.CompletedProcess[str]":
    """Grade in a process of its own."""
    command = (sys.executable, "-m", "weighin.grading", str(model), str(test), str(out))
    return _run((*command, *limits.options()), limits, {})


def in_container(image: str) -> Runner:
    """Return what grades in a container of `image`.

    Raises:
        DataError: docker/grade.sh is not here, or no engine answers.
    """
    if not SCRIPT.is_file():
        raise DataError(f"{SCRIPT} is not here", "run this in the project's folder")
    known = subprocess.run(("docker", "image", "inspect", image), capture_output=True, text=True)
    if known.returncode:
        problem = f"no container engine has the image {image}: {known.stderr.strip()}"
        raise DataError(
            problem, "run `make images`, or leave out --container to grade in processes"
        )

    def run(
        model: Path, test: Path, out: Path, limits: Limits
    ) -> "subprocess.CompletedProcess[str]":
        command = ("sh", str(SCRIPT), image, str(model), str(test), str(out))
        told = {"MEMORY": f"{limits.memory}m", "OPTIONS": " ".join(limits.options())}
        return _run(command, limits, told)

    return run


def grade_submission(
    submission: Submission, test: Path, folder: Path, run: Runner, limits: Limits
) -> Outcome:
    """Return what came of a submission, from `folder` where it was graded before."""
    try:
        model = read_model(submission.path)
    except WeighinError as error:
        return Outcome(submission.team, "malformed", error.problem)
    except OSError as error:
        return Outcome(submission.team, "malformed", f"it cannot be read: {error.strerror}")
    digest = sha256(model)
    code = source_hash("grading")
    key = {"model": digest, "test": _tree(test), "code": code, "limits": asdict(limits)}
    kept = folder / f"{fingerprint(key)}.json"
    if kept.is_file():
        found = read_json(kept)
    else:
        found = _graded(model, test, run, limits)
        if found["state"] != "crashed":  # that may be the machine's fault
            write_json(kept, found)
    return Outcome(submission.team, sha256=digest, bytes=len(model), **found)


def _graded(model: bytes, test: Path, run: Runner, limits: Limits) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="weighin-") as name:
        place = Path(name)
        out = place / "out"
        out.mkdir()
        write_bytes(place / "model.onnx", model)
        done = run(place / "model.onnx", test, out, limits)
        said = _sentence(done.stderr)
        if done.returncode in OURS:
            fix = "fix the test folder or the options, then run the same command again"
            raise DataError(f"the grader cannot work: {said}", fix)
        if done.returncode:
            return {"state": STATES.get(done.returncode, "crashed"), "said": said}
        try:
            facts = json.loads((out / "grade.json").read_bytes())
            labels = read_labels(out / "submission.csv").by_name(needed=False)
        except (OSError, ValueError, WeighinError) as error:
            return {"state": "crashed", "said": f"its output cannot be read: {error}"}
        return {"state": "graded", "said": "", "facts": facts, "labels": labels}


def _sentence(said: str) -> str:
    """Return a grader's error without paths of this machine, control characters and its fix."""
    lines = [line for line in said[-MAX_SAID:].splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    text = errors[0].removeprefix("error: ") if errors else "it ended without a word"
    head, colon, rest = text.partition(": ")
    text = rest if colon and head.endswith(".onnx") else text
    return "".join(char for char in text if char.isprintable())


def _run(
    command: Sequence[str], limits: Limits, extra: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a grader; what outlives its time is ended with all that it started."""
    limit = None if limits.seconds is None else limits.seconds + GRACE
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=said,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **extra},
            start_new_session=True,
        ) as process,
    ):
        over = ""
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code, over = 12, f"error: it takes more than the {limits.seconds} s it may take"
        finally:
            _end(process.pid)
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4 * MAX_SAID))
        message = said.read().decode(errors="replace")
    return subprocess.CompletedProcess(command, code, "", message or over)


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise OutputError(f"cannot end the grader: {error}", "end it by hand") from error


@cache
def _tree(folder: Path) -> str:
    return sha256_tree(folder)
