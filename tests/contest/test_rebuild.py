"""Which submissions are rebuilt, from what, and what is said where that cannot be; real Git."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.contest.conftest import model_bytes
from tests.small_models import write_pictures
from weighin.contest import rebuild
from weighin.contest.grading import Grader, grade_submission
from weighin.contest.ranking import Board, Line, Standing
from weighin.contest.rebuild import Rebuild, rebuilt
from weighin.contest.submissions import found_in, zipped
from weighin.grading.limits import Limits
from weighin.grading.score import WASTE

LOCK = """stages:
  report:
    outs: [{{path: report.html, md5: {}}}]
  train:
    outs: [{{path: work/train, md5: {}}}]
"""
RANKED = Standing(0.1, 0.0, 0.2, 0.9, 0.9, 1, 1, 1, None, 0.0, {})


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(("git", *who, *words), cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose commit records that its model is `model_bytes()`."""
    folder = tmp_path / "repository"
    (folder / "submission").mkdir(parents=True)
    (folder / "submission/model.onnx").write_bytes(model_bytes())
    (folder / "dvc.yaml").write_text("stages: {train: {}, report: {}}\n")
    (folder / "dvc.lock").write_text(LOCK.format("b", "a"))
    git(tmp_path, "init", "--quiet", str(folder))
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "built")
    return folder


def board_of(entries: Path, tmp_path: Path) -> Board:
    test = tmp_path / "test"
    write_pictures(test)
    lines = []
    for each in found_in(entries):
        outcome = grade_submission(each, Grader(test, Limits(60)), tmp_path / "graded")
        lines.append(Line(outcome, RANKED))
    return Board(tuple(lines), WASTE, 1, 0)


def entry(folder: Path, team: str, source: dict[str, str] | None, model: bytes) -> None:
    files = {"model.onnx": model}
    if source is not None:
        files["source.json"] = json.dumps(source).encode()
    folder.mkdir(exist_ok=True)
    (folder / f"{team}.zip").write_bytes(zipped(files))


def test_what_cannot_be_compared_says_why(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, commit = tmp_path / "entries", git(repository, "rev-parse", "HEAD")
    entry(entries, "a", None, model_bytes())
    entry(entries, "b", {"repository": str(tmp_path / "none"), "commit": commit}, model_bytes(0.1))
    entry(entries, "c", {"repository": str(repository), "commit": "f" * 40}, model_bytes(0.2))
    entry(
        entries, "d", {"repository": "ext::sh -c touch% hacked", "commit": commit}, model_bytes(0.3)
    )
    monkeypatch.setattr(rebuild, "image_id", lambda _: "sha256:1")
    found = rebuilt(board_of(entries, tmp_path), entries, Rebuild(4, tmp_path / "clones"))
    assert dict(found) == {
        "a": "cannot be compared here: it names no repository and commit",
        "b": f"cannot be compared here: {tmp_path / 'none'} cannot be cloned",
        "c": f"cannot be compared here: the repository has no commit {'f' * 40}",
        "d": "cannot be compared here: ext::sh -c touch% hacked cannot be cloned",
    }
    assert not list(tmp_path.rglob("hacked"))


OTHER = "echo x > submission/model.onnx"
VERDICTS = [
    ("true", "verified"),
    (f"{OTHER}; sed -i 's/md5: b/md5: c/' dvc.lock", "differs at report"),
    (f"{OTHER}; sed -i 's/md5: /md5: x/' dvc.lock", "differs at train"),
    (f"{OTHER}; rm dvc.lock", "differs at train"),
    (f"{OTHER}; ln -sf /dev/zero dvc.lock", "differs at train"),
    (OTHER, "differs at the hand-in: its commit makes another model"),
    # the model that was ranked is elsewhere on this machine
    ("rm -r submission; ln -s {models} submission", "differs at the hand-in: its commit makes"),
    ("ln -sf {models}/model.onnx submission/model.onnx", "differs at the hand-in: its commit"),
    ("echo no data >&2; exit 5", "cannot be compared here: no data"),
    ("sleep 60", "cannot be compared here: it took more than 0.0005 hours"),
    ("yes > much", "cannot be compared here: it wrote more than it may"),
    ("test ! -e .git && grep -q ours data/train.csv", "verified"),
]


@pytest.mark.parametrize(("build", "verdict"), VERDICTS)
def test_verdicts(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: str,
    verdict: str,
) -> None:
    """A shell stands in for the rebuild image: it gets the checkout, and does what is wanted."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.onnx").write_bytes(model_bytes())
    build = build.format(models=tmp_path / "models")
    script = f'cd "${{6%:/project}}" && {{ {build}; }}'
    monkeypatch.setattr(rebuild, "CONTAINER", ("sh", "-c", script, "docker"))
    monkeypatch.setattr(rebuild, "image_id", lambda _: "sha256:1")
    monkeypatch.setattr(rebuild, "MAX_WRITTEN", 2**25)
    entries = tmp_path / "entries"
    (repository / "data").symlink_to("/etc")
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "data of its own")
    commit = git(repository, "rev-parse", "HEAD")
    entry(entries, "team", {"repository": str(repository), "commit": commit}, model_bytes())
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text("ours\n")
    hours = 0.0005 if build == "sleep 60" else 1
    how = Rebuild(1, tmp_path / "clones", data, hours=hours)
    board = board_of(entries, tmp_path)
    found = dict(rebuilt(board, entries, how))
    assert found["team"].startswith(verdict)
    assert [path.suffix for path in (tmp_path / "clones").iterdir()] == (
        [] if verdict.startswith("cannot") else [".json"]
    )
    if not verdict.startswith("cannot"):  # what was found is not looked for again
        monkeypatch.setattr(rebuild, "CONTAINER", ("false",))
        assert dict(rebuilt(board, entries, how)) == found
        kept = next((tmp_path / "clones").iterdir())
        for damage in ("", "{}", "[]", '{"verdict": 5}'):  # with these it is looked for again
            kept.write_text(damage)
            assert dict(rebuilt(board, entries, how))["team"].startswith("cannot be compared")
