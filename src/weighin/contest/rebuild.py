"""The best submissions rebuilt from their own repository and commit, and compared.

A bundle's source.json names where its code is. It is cloned and rebuilt in the rebuild image,
without a network, on the organizer's copy of the training data; what comes out must be the model
that was ranked.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from weighin.contest.leaderboard import Board
from weighin.contest.submissions import MODEL, found_in, read_file
from weighin.files import sha256_file

IMAGE = "weighin-rebuild"
SECONDS = 6 * 3600.0
NO_NETWORK = (
    *("docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--pids-limit", "512", "--memory", "8g"),
)


@dataclass(frozen=True)
class Rebuild:
    """How submissions are rebuilt."""

    top: int  # so many of the best
    folder: Path  # where the clones lie
    data: Path | None = None  # the training data, as a project's data/; None: what a clone brings
    seconds: float = SECONDS


def rebuilt(board: Board, submissions: Path, how: Rebuild) -> dict[str, str]:
    """Return {team: verdict} of the best submissions.

    A verdict is "verified", "differs at STAGE", or "cannot be compared here: WHY".
    """
    paths = {each.team: each.path for each in found_in(submissions)}
    ranked = [line for line in board.lines if line.deciding][: how.top]
    return {line.team: _verdict(paths[line.team], line.outcome.sha256, how) for line in ranked}


def _verdict(path: Path, expected: str, how: Rebuild) -> str:
    data = read_file(path, "source.json")
    try:
        source = json.loads(data) if data else {}
    except ValueError:
        source = {}
    if not isinstance(source, dict) or not source.get("repository") or not source.get("commit"):
        return "cannot be compared here: it names no repository and commit"
    clone = how.folder / expected
    problem = _cloned(str(source["repository"]), str(source["commit"]), clone)
    if problem:
        return f"cannot be compared here: {problem}"
    if how.data is not None and not (clone / "data").exists():
        shutil.copytree(how.data, clone / "data")
    return _rebuilt(clone, expected, how.seconds)


def _cloned(repository: str, commit: str, clone: Path) -> str:
    """Clone a commit into a folder unless it is there; return what went wrong."""
    if not clone.exists():
        clone.parent.mkdir(parents=True, exist_ok=True)
        plain = (
            "git",
            "-c",
            "protocol.ext.allow=never",
            "clone",
            "--quiet",
            "--no-recurse-submodules",
        )
        done = subprocess.run(
            (*plain, "--", repository, str(clone)), capture_output=True, text=True
        )
        if done.returncode:
            return f"{repository} cannot be cloned"
    found = subprocess.run(
        ("git", "checkout", "--quiet", "--detach", f"{commit}^{{commit}}", "--"),
        cwd=clone,
        capture_output=True,
    )
    return f"the repository has no commit {commit}" if found.returncode else ""


def _rebuilt(clone: Path, expected: str, seconds: float) -> str:
    user = subprocess.run(("id", "-u"), capture_output=True, text=True, check=True).stdout.strip()
    place = ("--user", user, "-v", f"{clone.resolve()}:/project", IMAGE)
    try:
        done = subprocess.run(
            (*NO_NETWORK, *place), capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"cannot be compared here: it took more than {seconds:g} s"
    except FileNotFoundError:
        return "cannot be compared here: there is no container engine"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return f"cannot be compared here: {last}"
    model = clone / "submission" / MODEL
    if not model.is_file() or sha256_file(model) != expected:
        return f"differs at {_first_difference(clone)}"
    return "verified"


def _first_difference(clone: Path) -> str:
    """Return the first stage whose outputs are not those of the committed dvc.lock."""
    from weighin.files import read_yaml

    committed = subprocess.run(
        ("git", "show", "HEAD:dvc.lock"), cwd=clone, capture_output=True, text=True, check=True
    )
    (clone / ".weighin").mkdir(exist_ok=True)
    record = clone / ".weighin/committed.lock"
    record.write_text(committed.stdout, encoding="utf-8")
    own, new = read_yaml(record)["stages"], read_yaml(clone / "dvc.lock")["stages"]
    different = (name for name in new if new[name].get("outs") != own.get(name, {}).get("outs"))
    return next(different, "the model that was handed in, which is not that of its commit")
