"""An import replaces what it wrote itself or what DVC keeps, and nothing else of anybody's."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from photos import tree, write
from test_versioning import commit, git

from weighin.cli import commands
from weighin.data.import_index import ImportIndex
from weighin.data.importing import Options, import_data
from weighin.data.versioning import Held, dvc, fetch, held, record, recorded
from weighin.errors import DataError, WeighinError
from weighin.files import read_json, sha256_tree
from weighin.label_csv import Row

Make = Callable[[Path], object]


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return tree(tmp_path / "first", {"A": 2, "B": 2}) / "train"


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return tree(tmp_path / "second", {"C": 3, "D": 1}, 50) / "train"


def refused(source: Path, into: Path, options: Options | None = None) -> DataError:
    """Import and return the error; not a byte may change, in `into` or around it."""
    before = {path: path.lstat().st_mtime_ns for path in into.parent.rglob("*")}
    hashes = sha256_tree(into.parent)
    with pytest.raises(DataError) as caught:
        import_data(source, into, options)
    assert {path: path.lstat().st_mtime_ns for path in into.parent.rglob("*")} == before
    assert sha256_tree(into.parent) == hashes
    return caught.value


def classes(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "train").iterdir())


# --- without DVC


def test_an_import_replaces_an_import(tmp_path: Path, first: Path, second: Path) -> None:
    (tmp_path / "data").mkdir()  # and an empty folder
    import_data(first, tmp_path / "data")
    import_data(second, tmp_path / "data")
    assert classes(tmp_path / "data") == ["C", "D"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "first", "second"]


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda data: write(data / "thesis.docx", b"x"), "thesis.docx"),
        (lambda data: write(data / "raw/1.jpg", b"x"), "raw"),
        (lambda data: write(data / "train/A/more.jpg", b"x"), "train"),
        (lambda data: write(data / "train/A/000.jpg", b"edited"), "train"),
        (lambda data: (data / "train/A/000.jpg").unlink(), "train"),
        (lambda data: write(data / "train.csv", b"edited"), "train.csv"),
        (lambda data: (data / "thesis").mkdir(), "thesis"),
    ],
)
def test_an_import_that_was_changed_stays(
    tmp_path: Path, first: Path, second: Path, change: Make, culprit: str
) -> None:
    import_data(first, tmp_path / "data")
    change(tmp_path / "data")
    error = refused(second, tmp_path / "data")
    assert f"was changed since it was imported, and is not kept by DVC as it is: {culprit}. " in (
        error.problem
    )
    assert "--force, which moves it to" in error.fix


@pytest.mark.parametrize(
    "fill",
    [
        lambda data: write(data / "thesis.docx", b"x"),
        lambda data: write(data / "train/A/000.jpg", b"x"),
        lambda data: write(data / "import.json", b"{}"),
        lambda data: write(data / "import.json", b'{"images": 3, "kind": "folder"}'),
        lambda data: write(data / "import.json", b"\xff"),
        lambda data: write(data / "demo.json", b"[1]"),
    ],
)
def test_what_no_import_wrote_stays(tmp_path: Path, first: Path, fill: Make) -> None:
    fill(tmp_path / "data")
    error = refused(first, tmp_path / "data")
    assert "The import would have replaced its 1 files" in error.problem


def test_force_moves_it_aside_each_time(tmp_path: Path, first: Path, second: Path) -> None:
    data = tmp_path / "data"
    write(data / "thesis.docx", b"first")
    report = import_data(first, data, force=True)
    assert report["notes"] == [f"what {data} was is in {data}.before-1"]
    assert (tmp_path / "data.before-1/thesis.docx").read_bytes() == b"first"
    write(data / "thesis.docx", b"second")
    import_data(second, data, force=True)
    assert (tmp_path / "data.before-2/thesis.docx").read_bytes() == b"second"
    assert (tmp_path / "data.before-1/thesis.docx").read_bytes() == b"first"
    import_data(first, data, force=True)  # an import as it was: nothing to keep
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("data", "data.before-1", "data.before-2", "first", "second")
    ]


def test_a_forced_import_keeps_the_test_and_shares_no_file(tmp_path: Path, first: Path) -> None:
    data = tmp_path / "data"
    write(tmp_path / "public/1.jpg", b"x")
    import_data(first, data, Options(test=tmp_path / "public"))
    write(data / "notes.txt", b"x")
    import_data(first, data, force=True)
    kept, old = data / "test/1.jpg", tmp_path / "data.before-1/test/1.jpg"
    assert kept.read_bytes() == old.read_bytes() == b"x"
    assert kept.stat().st_ino != old.stat().st_ino


def test_a_source_inside_the_target(tmp_path: Path, first: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(first, data / "raw")
    write(data / "labels.csv", b"filename,class\n")
    for source in (data / "raw", data, data / "labels.csv", data / "raw/A"):
        error = refused(source, data)
        assert error.problem == f"{source} lies in {data}, which an import replaces"
    (tmp_path / "link").symlink_to(data / "raw")
    assert "link lies in" in refused(tmp_path / "link", data).problem
    for options in (Options(images=data / "raw"), Options(test=data / "raw"), Options(truth=data)):
        assert "which an import replaces" in refused(first, data, options).problem
    with pytest.raises(DataError, match="which an import replaces"):
        import_data(data / "raw", data, force=True)
    assert classes(data.parent / "first") == ["A", "B"]
    assert (data / "raw/A/000.jpg").exists()


def test_a_target_inside_the_source(tmp_path: Path, first: Path) -> None:
    error = refused(tmp_path, tmp_path / "data")
    assert error.problem == f"{tmp_path} holds {tmp_path}/data, which an import replaces"
    import_data(first, tmp_path / "data")
    assert "holds" in refused(tmp_path, tmp_path / "data").problem
    assert "holds" in refused(first, tmp_path / "data", Options(test=tmp_path)).problem


def test_images_of_a_table_that_lie_in_the_target(tmp_path: Path) -> None:
    """A table beside data/ finds its images there by itself: they are not its to replace."""
    data = tmp_path / "data"
    write(data / "1.jpg", b"x")
    write(tmp_path / "labels.csv", b"filename,class\n1.jpg,A\n")
    with pytest.raises(DataError) as caught:
        import_data(tmp_path / "labels.csv", data, force=True)
    assert caught.value.problem == f"1.jpg was found in {data}, which an import replaces"
    assert (data / "1.jpg").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "labels.csv"]


def test_a_link_or_a_file_in_the_place_of_the_target(tmp_path: Path, first: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    import_data(first, elsewhere)
    (tmp_path / "data").symlink_to(elsewhere)
    assert refused(first, tmp_path / "data").problem == f"{tmp_path}/data is a link to {elsewhere}"
    (tmp_path / "data").unlink()
    write(tmp_path / "data", b"precious")
    assert refused(first, tmp_path / "data").problem == f"{tmp_path}/data is a file"


def test_what_comes_into_data_during_the_import_stays(
    tmp_path: Path, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_data(first, tmp_path / "data")
    add = ImportIndex.add

    def meanwhile(index: ImportIndex, row: Row) -> str:
        write(tmp_path / "data/notes.txt", b"precious")
        return add(index, row)

    monkeypatch.setattr(ImportIndex, "add", meanwhile)
    with pytest.raises(DataError, match="was changed during the import"):
        import_data(second, tmp_path / "data")
    assert (tmp_path / "data/notes.txt").read_bytes() == b"precious"
    assert classes(tmp_path / "data") == ["A", "B"]


KILLED = """
import sys, time
from pathlib import Path
from weighin.data.importing import import_data
rename = Path.rename
def renaming(self, target):
    rename(self, target)
    print(target, flush=True)
    time.sleep(60)
Path.rename = renaming
import_data(Path(sys.argv[1]), Path(sys.argv[2]), force=True)
"""


@pytest.mark.kills
def test_a_killed_forced_import_loses_nothing(tmp_path: Path, first: Path) -> None:
    """Between the two renames of a forced import the old folder lies aside, where it stays."""
    data = tmp_path / "data"
    write(data / "thesis.docx", b"precious")
    command = [sys.executable, "-c", KILLED, str(first), str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{data}.before-1\n"
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "data.before-1/thesis.docx").read_bytes() == b"precious"
    import_data(first, data)
    assert (tmp_path / "data.before-1/thesis.docx").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.before-1", "first"]


def test_a_source_photograph_that_cannot_be_read(first: Path) -> None:
    """Another user's: it is named, counted and left out; the disk is not blamed."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from weighin.data.importing import import_data\n"
        "os.getuid() or os.setuid(65534)\n"  # root reads everything
        "import_data(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(first, folder / "first")
        (folder / "first/A/000.jpg").chmod(0)
        folder.chmod(0o777)
        command = [sys.executable, "-c", script, str(folder / "first"), str(folder / "data")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report = read_json(folder / "data/import.json")
    assert report["skipped"] == {"it cannot be read: Permission denied": 1}
    assert report["such_as"] == {"it cannot be read: Permission denied": "A/000.jpg"}
    assert report["classes"] == {"A": 1, "B": 2}


# --- with DVC


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data/ is recorded, in its second version, and was not imported."""
    folder = tmp_path_factory.mktemp("made") / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    dvc(folder, "init")
    shutil.move(str(tree(folder.parent / "one", {"A": 2, "B": 2}) / "train"), folder / "data/train")
    record(folder)
    commit(folder, "one")
    write(folder / "data/train/A/new.jpg", b"new")
    record(folder)
    commit(folder, "two")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project", symlinks=True))


def drawn(folder: Path) -> None:
    """Stand for the drawing of the default set."""
    write(folder / "train/A/drawn.jpg", b"drawn")


def test_what_dvc_keeps_may_be_replaced(project: Path, second: Path) -> None:
    wanted = str(recorded(project))
    assert held(project / "data") == Held(wanted, wanted, True, True)
    import_data(second, project / "data")
    assert classes(project / "data") == ["C", "D"]
    dvc(project, "checkout", "--force", "data.dvc")
    assert classes(project / "data") == ["A", "B"]
    git(
        project, "checkout", "--quiet", "HEAD~1", "data.dvc"
    )  # an earlier version lies in the cache
    import_data(second, project / "data")
    assert classes(project / "data") == ["C", "D"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: write(data / "train/A/mine.jpg", b"mine"),
        lambda data: (data / "train/A/000.jpg").unlink(),  # a choice is work too
        lambda data: shutil.rmtree(data.parent / ".dvc/cache") or write(data / "x", b"x"),
    ],
)
def test_what_dvc_does_not_keep_stays(project: Path, second: Path, change: Make) -> None:
    change(project / "data")
    assert "not kept by DVC as it is" in refused(second, project / "data").problem


def test_checks_come_before_the_first_write(tmp_path: Path, first: Path) -> None:
    """No Git, no DVC, or data/ in Git: told before anything is touched, in the command's way."""
    write(tmp_path / "project/data/thesis.docx", b"precious")
    runner = CliRunner()
    old = Path.cwd()
    os.chdir(tmp_path / "project")
    try:
        for prepare, problem in (
            (lambda: None, "not inside of a DVC repository"),
            (lambda: git(Path(), "init", "--quiet"), "not inside of a DVC repository"),
            (lambda: dvc(Path(), "init") and git(Path(), "add", "data"), "Git keeps data/thesis"),
        ):
            prepare()
            found = runner.invoke(commands(), ["import", str(first), "--force"])
            assert isinstance(found.exception, WeighinError)
            assert problem in str(found.exception)
            assert Path("data/thesis.docx").read_bytes() == b"precious"
            assert [p.name for p in Path().iterdir() if "data" in p.name] == ["data"]
        git(Path(), "rm", "-r", "--cached", "--quiet", "data")
        found = runner.invoke(commands(), ["import", str(first)])
        assert "was not written by an import" in str(found.exception)
        found = runner.invoke(commands(), ["import", str(first), "--force"])
        assert found.exit_code == 0, found.output
        assert "what data was is in data.before-1" in found.output
        assert Path("data.before-1/thesis.docx").read_bytes() == b"precious"
        assert recorded(Path()) is not None
    finally:
        os.chdir(old)


# --- fetch


def test_fetch_takes_what_is_recorded_where_another_version_lies(project: Path) -> None:
    now = recorded(project)
    git(project, "checkout", "--quiet", "HEAD~1", "data.dvc")
    line = fetch(project, "none", drawn)
    assert not (project / "data/train/A/new.jpg").exists()
    assert str(now) in line
    wanted = str(recorded(project))
    assert held(project / "data") == Held(wanted, wanted, True, True)
    git(project, "checkout", "--quiet", "HEAD", "data.dvc")
    fetch(project, "none", drawn)
    assert (project / "data/train/A/new.jpg").exists()
    assert fetch(project, "none", drawn) == "data/ is what data.dvc records"
    assert git(project, "status", "--short") == ""


@pytest.mark.parametrize("gone", [shutil.rmtree, lambda data: shutil.rmtree(data) or data.mkdir()])
def test_fetch_fills_what_is_missing_or_empty(project: Path, gone: Make) -> None:
    before = sha256_tree(project / "data")
    gone(project / "data")
    fetch(project, "none", drawn)
    assert sha256_tree(project / "data") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda data: write(data / "train/A/mine.jpg", b"mine"),
        lambda data: write(data / "train/A/000.jpg", b"mine"),
        lambda data: (data / "train/A/000.jpg").unlink(),
    ],
)
@pytest.mark.parametrize("version", ["HEAD", "HEAD~1"])
def test_fetch_stops_where_data_is_recorded_nowhere(
    project: Path, change: Make, version: str
) -> None:
    change(project / "data")
    git(project, "checkout", "--quiet", version, "data.dvc")
    before = sha256_tree(project / "data"), (project / "data.dvc").read_bytes()
    with pytest.raises(DataError) as caught:
        fetch(project, "none", drawn)
    assert (sha256_tree(project / "data"), (project / "data.dvc").read_bytes()) == before
    assert "holds what is recorded nowhere: " in caught.value.problem
    assert "such as data/train/A/" in caught.value.problem
    assert "`dvc add data`" in caught.value.fix


def test_fetch_draws_the_default_set(project: Path) -> None:
    """It is in no cache and no remote; another version of data/ makes way, in the cache."""
    shutil.move(project / "data", project.parent / "kept")
    drawn(project / "data")
    record(project)
    default = recorded(project)
    commit(project, "the default")
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc/cache")
    assert default is not None
    assert fetch(project, default, drawn) == "data/ was drawn, and is what data.dvc records"
    assert git(project, "status", "--short") == ""
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "data")
    with pytest.raises(WeighinError, match="data set drawn here is"):
        fetch(project, default, lambda folder: write(folder / "train/A/other.jpg", b"other"))
    assert git(project, "status", "--short") == ""


def test_fetch_from_a_remote_where_the_cache_is_empty(project: Path) -> None:
    dvc(project, "remote", "add", "--default", "store", str(project.parent / "store"))
    dvc(project, "push")
    before = sha256_tree(project / "data")
    for lost in ("data", ".dvc/cache"):
        shutil.rmtree(project / lost)
    fetch(project, "none", drawn)
    assert sha256_tree(project / "data") == before
    for lost in ("data", ".dvc/cache", "../store"):
        shutil.rmtree(project / lost)
    with pytest.raises(DataError, match="neither DVC's cache nor a remote has") as caught:
        fetch(project, "none", drawn)
    assert "`dvc push`" in caught.value.fix


def test_fetch_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no data"):
        fetch(tmp_path, "none", drawn)
