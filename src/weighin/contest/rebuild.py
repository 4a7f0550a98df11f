"""The best submissions rebuilt from their own repository and commit, and compared.

A bundle's source.json names where its code is. That commit is checked out and run in the rebuild
image, without a network and without what DVC has recorded of it, on the organizer's copy of the
training data; what comes out must be the model that was ranked. The verdict is one of

    verified
    differs at STAGE
    cannot be compared here: WHY
    not tried

What runs is the participants' code. It writes to its checkout alone, nothing of the checkout is
executed here afterwards, and no file of it is read through a link. "Verified" says that this code
makes this model; whether it should have done so that way, only a look at it tells.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from weighin.contest.grading import Ended, bounded, container_name, image_id
from weighin.contest.pages import write_board
from weighin.contest.ranking import Board, Line, with_rebuilt
from weighin.contest.submissions import MAX_BYTES, MODEL, found_in, plain, read_file
from weighin.errors import WeighinError
from weighin.files import fingerprint, from_yaml, read_json, sha256, sha256_tree, write_json
from weighin.progress import Progress

IMAGE, HOURS = "weighin-rebuild", 6.0
MAX_WRITTEN = 50_000_000_000  # bytes that a checkout may grow to
MAX_LOCK = 1_000_000  # bytes of a dvc.lock
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
SAFE_GIT = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file"}
CONTAINER = (
    *("docker", "run", "--rm", "--network", "none", "--log-driver", "none", "--read-only"),
    *("--tmpfs", "/tmp:rw,exec,nosuid,nodev,size=2g", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--pids-limit", "512"),
    *("--memory", "8g", "--memory-swap", "8g", "--ulimit", "core=0"),
)
ALL_STAGES = "weighin check; weighin fetch; dvc repro --force --no-run-cache"


@dataclass(frozen=True)
class Rebuild:
    """How submissions are rebuilt."""

    top: int  # so many of the best
    folder: Path  # where checkouts and verdicts lie
    data: Path | None = None  # the training data, as a project's data/; None: what is committed
    image: str = IMAGE
    hours: float = HOURS  # for one of them
    stopped: Event = field(default_factory=Event, compare=False)


class CannotCompareError(Exception):
    """Why a submission cannot be rebuilt here."""


def rebuilt_board(board: Board, submissions: Path, out: Path, how: Rebuild) -> Board:
    """Return a board with the verdicts on its best; it is written after each of them."""
    for team, verdict in rebuilt(board, submissions, how):
        board = with_rebuilt(board, team, verdict)
        write_board(board, out)
    return board


def rebuilt(board: Board, submissions: Path, how: Rebuild) -> Iterator[tuple[str, str]]:
    """Yield (team, verdict) of the best submissions, one after another."""
    paths = {each.team: each.path for each in found_in(submissions)}
    lines = [line for line in board.lines if line.deciding][: how.top]
    progress = Progress("rebuilt", len(lines))
    for line in lines:
        try:
            verdict = _verdict(paths[line.team], line, how)
        except CannotCompareError as error:
            verdict = f"cannot be compared here: {error}"
        progress.step(f"{line.team}: {verdict}")
        yield line.team, verdict


def _verdict(path: Path, line: Line, how: Rebuild) -> str:
    repository, commit = _source(path)
    image = image_id(how.image)
    if image is None:
        raise CannotCompareError(f"no container engine has the image {how.image}")
    facts = {"model": line.outcome.sha256, "commit": commit, "image": image}
    facts["data"] = sha256_tree(how.data) if how.data else ""
    kept = how.folder / f"{fingerprint(facts)}.json"
    if known := _kept(kept):
        return known
    how.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=how.folder, ignore_cleanup_errors=True) as name:
        project = Path(name) / "project"
        _check_out(repository, commit, project, how)
        before = _outputs(project)
        _run_stages(project, image, how)
        verdict = _compared(project, line.outcome.sha256, before)
    write_json(kept, {"verdict": verdict, "team": line.team, **facts})
    return verdict


def _kept(path: Path) -> str | None:
    """Return the verdict in a file; None where there is none, or it was cut or changed."""
    try:
        verdict = read_json(path)["verdict"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return verdict if isinstance(verdict, str) else None


def _source(path: Path) -> tuple[str, str]:
    """Return the repository and the commit that a bundle names."""
    try:
        source = json.loads(read_file(path, "source.json") or b"{}")
        repository, commit = str(source["repository"] or ""), str(source["commit"])
    except (WeighinError, ValueError, LookupError, TypeError, RecursionError):
        raise CannotCompareError("it names no repository and commit") from None
    if not repository or not COMMIT.fullmatch(commit):
        raise CannotCompareError("it names no repository and commit")
    return repository, commit


def _check_out(repository: str, commit: str, project: Path, how: Rebuild) -> None:
    """Lay a commit's files into a new folder, without Git's own; the data are the organizer's."""
    project.mkdir()
    bare = project.with_name("git")
    clone = ("git", "clone", "--bare", "--quiet", "--", repository, str(bare))
    if _run(clone, project.parent, how).code:
        raise CannotCompareError(f"{repository} cannot be cloned")
    places = ("git", "--git-dir", str(bare), "--work-tree", str(project))
    if _run((*places, "checkout", "--quiet", commit, "--", "."), project.parent, how).code:
        raise CannotCompareError(f"the repository has no commit {commit}")
    if how.data is not None:
        data = project / "data"
        if data.is_symlink() or data.is_file():
            data.unlink()
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(how.data, data)


def _run_stages(project: Path, image: str, how: Rebuild) -> None:
    name = container_name()
    place = ("--user", f"{os.getuid()}:{os.getgid()}", "-v", f"{project.resolve()}:/project")
    command = (*CONTAINER, "--name", name, *place, image, "sh", "-euc", ALL_STAGES)
    ended = _run(command, project, how, name)
    if ended.code:
        last = (ended.said.strip().splitlines() or ["it ended without a word"])[-1]
        raise CannotCompareError("".join(char for char in last if char.isprintable())[:300])


def _run(command: tuple[str, ...], folder: Path, how: Rebuild, container: str = "") -> Ended:
    ended = bounded(
        command,
        3600 * how.hours,
        folder,
        how.stopped,
        container=container,
        environment=SAFE_GIT,
        most=MAX_WRITTEN,
    )
    if ended.over == "time":
        raise CannotCompareError(f"it took more than {how.hours:g} hours")
    if ended.over:
        raise CannotCompareError("it wrote more than it may")
    return ended


def _compared(project: Path, expected: str, before: dict[str, dict[str, str]]) -> str:
    """Return the verdict on what was rebuilt; the first stage with outputs not as recorded."""
    model = _inside(project, f"submission/{MODEL}", MAX_BYTES[MODEL])
    if model is not None and sha256(model) == expected:
        return "verified"
    after = _outputs(project)
    different = (stage for stage in before if before[stage] != after.get(stage))
    return f"differs at {next(different, 'the hand-in: its commit makes another model')}"


def _outputs(project: Path) -> dict[str, dict[str, str]]:
    """Return {stage: {output: hash}} of a checkout's dvc.lock, in the order of its dvc.yaml."""
    try:
        order, stages = (
            from_yaml(_inside(project, name, MAX_LOCK) or b"", name)["stages"]
            for name in ("dvc.yaml", "dvc.lock")
        )
        return {
            str(name): {str(out["path"]): str(out["md5"])[:99] for out in stages[name]["outs"]}
            for name in (*order, *stages)
            if name in stages
        }
    except (WeighinError, LookupError, TypeError, AttributeError):
        return {}


def _inside(project: Path, name: str, most: int) -> bytes | None:
    """Return a plain file of a checkout; None where it is none, or a link leads to it."""
    path = project / name
    if path.resolve() != project.resolve() / name:
        return None
    try:
        return plain(path, most)
    except WeighinError:
        return None
