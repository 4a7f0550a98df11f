"""The bundle of a project's submission: what goes in, and what it is refused for."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.contest.conftest import model_bytes
from tests.pipeline.project import IDENTITY
from weighin.contest.submissions import NEEDED, submit
from weighin.errors import DataError, OutputError

ROOT = Path(__file__).parents[2]
DVC = """stages:
  build:
    cmd: "true"
    deps: [photos.txt]
    params: [seed]
    outs: [submission/model.onnx, submission/submission.csv]
"""


def run(project: Path, *command: str) -> None:
    env = {**os.environ, **IDENTITY}
    subprocess.run(command, cwd=project, env=env, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose submission DVC records, with a remote that holds a password."""
    project = tmp_path_factory.mktemp("bundle") / "project"
    (project / "submission").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", project)
    (project / "photos.txt").write_text("photographs\n")
    files = {
        "model.onnx": model_bytes(),
        "submission.csv": b"filename,class\na.png,red\n",
        "metrics.json": b'{"macs": 204}',
        "MODEL_CARD.md": b"# A model\n",
    }
    subjects = [
        {"name": name, "digest": {"sha256": hashlib.sha256(files[name]).hexdigest()}}
        for name in ("model.onnx", "submission.csv")
    ]
    files["provenance.json"] = json.dumps({"subject": subjects}).encode()
    for name, data in files.items():
        (project / "submission" / name).write_bytes(data)
    (project / "dvc.yaml").write_text(DVC)
    (project / ".gitignore").write_text("/submission\n/*.zip\n")
    run(project, "git", "init", "--quiet")
    run(project, "git", "remote", "add", "origin", "https://me:secret@example.org/team.git")
    run(project, sys.executable, "-m", "dvc", "init", "--quiet")
    run(project, sys.executable, "-m", "dvc", "commit", "--force", "--quiet")
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "--quiet", "-m", "built")
    return project


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "project")


def source(path: Path) -> dict[str, str | None]:
    with zipfile.ZipFile(path) as bundle:
        found: dict[str, str | None] = json.loads(bundle.read("source.json"))
    return found


def test_a_bundle_names_its_source_without_a_password(project: Path) -> None:
    out = project / "team.zip"
    assert submit(project, out) == (sorted([*NEEDED, "source.json"]), "")
    found = source(out)
    assert found["repository"] == "https://example.org/team.git"
    assert len(found["commit"] or "") == 40
    assert b"secret" not in out.read_bytes()
    first = out.read_bytes()
    submit(project, out)  # its own bundle is replaced
    assert out.read_bytes() == first
    (project / "dvc.yaml").write_text(DVC + "# edited\n")
    missing = "not committed: dvc.yaml; git commit -a, push it, submit again"
    assert submit(project, out)[1] == missing
    assert source(out)["commit"] is None
    run(project, "git", "checkout", "--quiet", "dvc.yaml")
    run(project, "git", "remote", "remove", "origin")
    assert submit(project, out)[1].startswith("Git has no remote: git remote add origin URL")
    shutil.rmtree(project / ".git")
    run(project, "git", "init", "--quiet")
    assert submit(project, out)[1].startswith("there is no commit: git add -A && git commit")


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("photos.txt", "photographs", "others"),
        ("params.yaml", "seed: 0", "seed: 1"),
        ("submission/submission.csv", "red", "blue"),
    ],
)
def test_what_changed_since_is_named(project: Path, path: str, before: str, after: str) -> None:
    text = (project / path).read_text()
    assert before in text
    (project / path).write_text(text.replace(before, after, 1))
    with pytest.raises(DataError) as told:
        submit(project, project / "team.zip")
    named = {"params.yaml": "seed"}.get(path, path)
    assert named in told.value.problem
    assert "dvc repro" in told.value.fix
    assert not (project / "team.zip").exists()


def test_a_file_of_the_users_is_not_replaced(project: Path) -> None:
    with zipfile.ZipFile(project / "photos.zip", "w") as archive:
        archive.writestr("a.png", b"")
    before = (project / "photos.zip").read_bytes()
    with pytest.raises(OutputError, match=r"photos\.zip is there already"):
        submit(project, project / "photos.zip")
    assert (project / "photos.zip").read_bytes() == before


def test_metrics_of_another_model(project: Path) -> None:
    (project / "submission/metrics.json").write_text('{"macs": 5}')
    with pytest.raises(DataError, match=r"says 5 MACs, model\.onnx does 204"):
        submit(project, project / "team.zip")
