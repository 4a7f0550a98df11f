"""An import is a version of the data: real DVC in a real Git repository, with real remotes."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from photos import tree, write

from weighin.data.importing import import_data
from weighin.data.versioning import dvc, record, recorded
from weighin.errors import DataError
from weighin.files import sha256_tree

PERSON = ("-c", "user.name=A Person", "-c", "user.email=person@example.org")
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}


def git(project: Path, *arguments: str) -> str:
    command = ["git", *PERSON, *arguments]
    return subprocess.run(
        command, cwd=project, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(project: Path, message: str) -> str:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", message)
    return git(project, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first commit holds an import of two classes."""
    folder = tmp_path_factory.mktemp("template")
    project = folder / "project"
    project.mkdir()
    git(project, "init", "--quiet")
    dvc(project, "init")
    write(project / ".dvc/config", b"[core]\n    check_update = false\n")
    import_data(tree(folder / "first", {"Glass": 3, "Metal": 2}) / "train", project / "data")
    assert record(project) == "data.dvc"
    commit(project, "first data")
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy of that project, and of its source in `first`."""
    shutil.copytree(template, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "project"


def test_an_import_is_a_version(project: Path, tmp_path: Path) -> None:
    first, before = git(project, "rev-parse", "HEAD"), sha256_tree(project / "data")
    told = recorded(project)
    more = tree(tmp_path / "second", {"Glass": 3, "Metal": 2, "Paper": 2}) / "train"
    import_data(more, project / "data")
    record(project)
    assert recorded(project) != told
    assert git(project, "status", "--short") == "M data.dvc"
    difference = dvc(project, "diff", "HEAD")
    assert "data/train/Paper/000.jpg" in difference
    assert "data/train/Glass/000.jpg" not in difference
    assert "files summary: 2 added, 2 modified" in difference  # train.csv and import.json too
    second, after = commit(project, "more data"), sha256_tree(project / "data")

    git(project, "checkout", "--quiet", first)
    dvc(project, "checkout")
    assert sha256_tree(project / "data") == before != after
    git(project, "checkout", "--quiet", second)
    dvc(project, "checkout")
    assert sha256_tree(project / "data") == after


def test_the_same_import_is_the_same_version(project: Path, tmp_path: Path) -> None:
    told = recorded(project)
    import_data(tmp_path / "first/train", project / "data")
    record(project)
    assert recorded(project) == told
    assert git(project, "status", "--short") == ""


def pushed_and_pulled(project: Path, remote: str) -> None:
    """Push to a remote (lines of its configuration), then clone the project and pull there."""
    with (project / ".dvc/config").open("a") as file:
        file.write(f"    remote = store\n['remote \"store\"']\n{remote}")
    commit(project, "a remote")
    dvc(project, "push")
    clone = project.parent / "clone"
    git(project, "clone", "--quiet", str(project), str(clone))
    assert not (clone / "data").exists()
    dvc(clone, "pull")
    assert sha256_tree(clone / "data") == sha256_tree(project / "data")


def test_a_folder_is_a_remote(project: Path, tmp_path: Path) -> None:
    pushed_and_pulled(project, f"    url = {tmp_path}/store\n")
    for lost in ("store", "clone/.dvc/cache", "clone/data"):
        shutil.rmtree(tmp_path / lost)
    with pytest.raises(DataError) as caught:
        dvc(tmp_path / "clone", "pull")
    assert str(caught.value) == (
        "`dvc pull` failed: failed to pull data from the cloud - Checkout failed for following "
        "targets: data Is your cache up to date? <https://error.dvc.org/missing-files>\n"
        "  to fix: run `dvc pull -v` to see all of it"
    )


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server of its own that speaks S3, with an empty bucket `bucket`; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    port = address.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "moto.server", "--port", port]
    environment = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            _put_bucket(address)
            yield address
        finally:
            server.terminate()


def _put_bucket(address: str) -> None:
    request = urllib.request.Request(f"{address}/bucket", method="PUT")
    for _ in range(300):
        try:
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("the S3 server did not start")


def test_s3_is_a_remote(project: Path, s3: str) -> None:
    pushed_and_pulled(project, f"    url = s3://bucket/waste\n    endpointurl = {s3}\n")
    with urllib.request.urlopen(f"{s3}/bucket?list-type=2&prefix=waste/files/md5") as answer:
        assert answer.read().count(b"<Key>") == 8  # 5 images, 2 tables and the folder's list


def test_without_a_repository(tmp_path: Path) -> None:
    write(tmp_path / "data/x", b"x")
    with pytest.raises(DataError) as caught:
        record(tmp_path)
    assert str(caught.value) == (
        "`dvc add data` failed: you are not inside of a DVC repository "
        "(checked up to mount point '/')\n"
        "  to fix: change to the project's folder, or make this one a project: "
        "`git init && dvc init`"
    )


def test_nothing_to_record(project: Path) -> None:
    shutil.rmtree(project / "data")
    with pytest.raises(DataError, match=r"`dvc add data` failed: .*does not exist"):
        record(project)


def test_what_is_recorded(tmp_path: Path) -> None:
    assert recorded(tmp_path) is None
    fix = "run `git checkout data.dvc` for the one in Git, or `dvc add data` for what is here"
    conflict = b"<<<<<<< HEAD\nouts: []\n=======\n"
    for text in (b"outs: []\n", b"", b"outs: 3\n", b"outs:\n- md5: abc\n", b"outs: {{\n", conflict):
        write(tmp_path / "data.dvc", text)
        with pytest.raises(DataError, match=r"data\.dvc (records no folder|is not YAML)") as caught:
            recorded(tmp_path)
        assert caught.value.fix == fix
