"""Bytes on purpose: whole or not at all, the same for the same content."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from weighin import files
from weighin.errors import OutputError
from weighin.files import JsonCache

FIX = "free some space or make its folder writable, then run the same command again"
SLOW_WRITER = """
import sys, time
from pathlib import Path
from weighin.files import replacing
with replacing(Path("out.bin")) as draft, draft.open("wb") as file:
    file.write(b"n" * 100_000)
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""
WRITER = """
import sys
from pathlib import Path
from weighin.errors import OutputError
from weighin.files import write_bytes
try:
    write_bytes(Path("out.bin"), b"n" * 100_000)
except OutputError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_canonical_json_to_the_byte(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"é": "ü\n"}, "c": []}
    files.write_json(tmp_path / "x.json", value)
    expected = (
        '{\n  "a": {\n    "é": "ü\\n"\n  },\n'
        '  "b": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  "c": []\n}\n'
    )
    assert (tmp_path / "x.json").read_bytes() == expected.encode()
    assert files.read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_canonical_json_holds_no_number_that_json_lacks(tmp_path, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": number})
    assert names(tmp_path) == []


def test_tables_to_the_byte(tmp_path):
    rows = [("a,b", 1), ('say "x"', 0.5), ("é", None)]
    files.write_csv(tmp_path / "x.csv", ("name", "n"), rows)
    assert (tmp_path / "x.csv").read_bytes() == 'name,n\n"a,b",1\n"say ""x""",0.5\né,\n'.encode()
    files.write_csv(tmp_path / "x.tsv", ("name", "n"), rows[:1], delimiter="\t")
    assert (tmp_path / "x.tsv").read_bytes() == b"name\tn\na,b\t1\n"


def test_line_ends_are_kept(tmp_path):
    files.write_text(tmp_path / "x", "a\nb\r\nc")
    assert (tmp_path / "x").read_bytes() == b"a\nb\r\nc"


def test_folders_are_made_and_a_file_is_readable_by_all(tmp_path):
    mask = os.umask(0o077)
    try:
        files.write_text(tmp_path / "a" / "b" / "x", "new")
    finally:
        os.umask(mask)
    assert (tmp_path / "a" / "b" / "x").stat().st_mode & 0o777 == 0o644
    assert names(tmp_path / "a" / "b") == ["x"]


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as draft:
        draft.write_text("half")
        _ = 1 // 0
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    (tmp_path / "out.bin").write_bytes(b"old")
    (tmp_path / "out.bin.txt").write_bytes(b"neighbour")
    command = [sys.executable, "-c", SLOW_WRITER]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert (tmp_path / "out.bin").read_bytes() == b"old"
    drafts = [path for path in tmp_path.iterdir() if path.name.startswith(".out.bin.")]
    assert [draft.stat().st_size for draft in drafts] == [100_000]
    files.sweep(tmp_path / "out.bin")
    assert names(tmp_path) == ["out.bin", "out.bin.txt"]


def test_sweeping_takes_a_name_as_it_is(tmp_path):
    others = [".a.12345678", ".[abc].txt.12345678", ".[abc].x"]
    for name in (*others, ".[abc].12345678"):
        (tmp_path / name).write_text("")
    files.sweep(tmp_path / "[abc]")
    assert names(tmp_path) == sorted(others)


def test_a_file_that_grows_too_large(tmp_path):
    (tmp_path / "out.bin").write_bytes(b"old")
    limit = (50_000, resource.RLIM_INFINITY)
    done = subprocess.run(
        [sys.executable, "-c", WRITER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    expected = f"cannot write out.bin: File too large\n  to fix: {FIX}\n"
    assert (done.stdout, done.returncode) == (expected, OutputError.exit_code)
    assert (tmp_path / "out.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_a_full_disk(tmp_path):
    """A real one, of 64 KB, seen by this process and its children alone."""
    script = 'mount -t tmpfs -o size=64k disk . && cd "$PWD" && echo old > out.bin && "$@"; code=$?'
    script += "; cat out.bin; ls -A; exit $code"
    command = ["unshare", "-rm", "sh", "-c", script, "sh"]
    if subprocess.run([*command, "true"], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk")
    writing = [*command, sys.executable, "-c", WRITER]
    done = subprocess.run(writing, cwd=tmp_path, capture_output=True, text=True)
    problem = "cannot write out.bin: No space left on device"
    assert done.stdout == f"{problem}\n  to fix: {FIX}\nold\nout.bin\n"
    assert done.returncode == OutputError.exit_code


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x"
    with pytest.raises(OutputError) as caught:
        files.write_text(path, "new")
    assert caught.value.problem == f"cannot write {path}: File exists"
    assert caught.value.fix == FIX


def test_a_folder_where_the_file_goes(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OutputError) as caught:
        files.write_text(tmp_path / "x", "new")
    assert caught.value.problem == f"cannot write {tmp_path / 'x'}: Is a directory"
    assert names(tmp_path) == ["x"]


def test_an_unreadable_input_is_no_error_of_writing(tmp_path):
    absent = tmp_path / "photo.jpg"
    for replace in (files.replacing, files.replace_folder):
        with pytest.raises(FileNotFoundError) as caught, replace(tmp_path / "out"):
            absent.read_bytes()
        assert caught.value.filename == str(absent)
        with pytest.raises(OutputError), replace(tmp_path / "out") as draft:
            (draft / "deeper/x").write_text("")
    assert names(tmp_path) == []


def grow_folder(target: Path, text: str) -> None:
    with files.replace_folder(target) as draft:
        (draft / files.NEW).mkdir()
        (draft / files.NEW / "x").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("one", "two"):
        grow_folder(tmp_path / "out", text)
        assert (tmp_path / "out/x").read_text() == text
        assert names(tmp_path) == ["out"]


def test_a_failure_leaves_the_old_folder_and_no_draft(tmp_path):
    grow_folder(tmp_path / "out", "old")
    with pytest.raises(ZeroDivisionError), files.replace_folder(tmp_path / "out") as draft:
        (draft / files.NEW).mkdir()
        _ = 1 // 0
    assert (tmp_path / "out/x").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_what_a_killed_run_had_moved_away_is_put_back(tmp_path):
    grow_folder(tmp_path / "out", "old")
    (tmp_path / ".out.draft").mkdir()
    (tmp_path / "out").rename(tmp_path / ".out.draft" / files.OLD)
    with pytest.raises(ZeroDivisionError), files.replace_folder(tmp_path / "out"):
        _ = 1 // 0
    assert (tmp_path / "out/x").read_text() == "old"


def test_hash_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    assert files.sha256(b"abc") == known
    assert files.sha256_file(tmp_path / "x") == known
    assert files.sha256_tree(tmp_path / "x") == known


def grow(folder: Path, contents: dict[str, str]) -> str:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return files.sha256_tree(folder)


def test_hash_of_a_folder_is_of_names_and_contents(tmp_path):
    first = grow(tmp_path / "first", {"b": "1", "a/c": "2"})
    assert grow(tmp_path / "second", {"a/c": "2", "b": "1"}) == first
    assert grow(tmp_path / "first", {"__pycache__/b.pyc": "x"}) == first
    others = [{"b": "1", "a/d": "2"}, {"b": "2", "a/c": "1"}, {"b": "1"}, {"b": "1", "a": "2"}]
    hashes = {grow(tmp_path / str(n), contents) for n, contents in enumerate(others)}
    assert len(hashes | {first}) == 5


def test_hash_of_a_folder_goes_by_the_parts_of_its_paths(tmp_path):
    contents = {"a/z": "1", "a-b": "2", "a/b/c": "3", "ä": "4", "a.b/x": "5"}
    found = grow(tmp_path / "x", contents)
    lines = [f"{n}\0{files.sha256(contents[n].encode())}\n" for n in sorted(contents, key=Path)]
    assert found == files.sha256("".join(lines).encode())


def test_fingerprint_of_facts():
    assert files.fingerprint({"a": 1, "b": [2, "x"]}) == "66e95f5369c15c7f"
    assert files.fingerprint({"b": [2, "x"], "a": 1}) == "66e95f5369c15c7f"
    assert files.fingerprint({"b": [2, "x"], "a": 1.5}) != "66e95f5369c15c7f"


def test_a_torn_cache_is_forgotten(tmp_path):
    path = tmp_path / "cache.json"
    assert JsonCache(path)("a", lambda: [1.5]) == [1.5]
    assert JsonCache(path)("a", lambda: [2.5]) == [1.5]
    path.write_bytes(path.read_bytes()[:9])
    assert JsonCache(path)("a", lambda: [2.5]) == [2.5]
    path.write_bytes(b"\xff\x00")
    assert JsonCache(path)("a", lambda: [3.5]) == [3.5]
