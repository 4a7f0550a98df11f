"""The default data set is the same bytes wherever and however it is drawn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weighin.data.demo import DEFAULT_MD5, draw_demo
from weighin.data.versioning import dvc, record, recorded
from weighin.determinism import PINS
from weighin.files import sha256_file, sha256_tree

COUNT, SIZE = 90, 40
DRAWN = "90ebca9f9cfbc5cd5286366f824a1542727be23c92e0c4a42c52175471fe567e"
SCRIPT = """
import sys
from pathlib import Path
from weighin.data.demo import draw_demo
if __name__ == "__main__":
    draw_demo(Path(sys.argv[1]), *map(int, sys.argv[2:]))
"""
ELSEWHERE = {
    "TZ": "Asia/Kolkata",
    "LANG": "tr_TR.UTF-8",
    "PYTHONHASHSEED": "77",
    "OMP_NUM_THREADS": "3",
    "MALLOC_PERTURB_": "165",
}


def drawn_elsewhere(folder: Path, *numbers: int, **extra: str) -> str:
    """Draw in another process, which is not pinned, and return the hash of what it drew."""
    environment = {name: value for name, value in os.environ.items() if name not in PINS}
    script = folder.parent / "draw.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), *map(str, numbers)]
    subprocess.run(command, cwd="/", env=environment | extra, check=True, capture_output=True)
    return sha256_tree(folder)


def drawn(folder: Path, seed: int = 0, workers: int = 1) -> str:
    draw_demo(folder, COUNT, SIZE, seed, workers)
    return sha256_tree(folder)


def test_known_bytes(tmp_path):
    assert drawn(tmp_path / "a") == DRAWN


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_change_no_byte(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("weighin.data.demo.CHUNK", 20)
    assert drawn(tmp_path / "a", workers=workers) == DRAWN


def test_another_process_draws_the_same(tmp_path):
    assert drawn_elsewhere(tmp_path / "a", COUNT, SIZE, 0, 1) == DRAWN
    assert drawn_elsewhere(tmp_path / "b", COUNT, SIZE, 0, 2, **ELSEWHERE) == DRAWN


def test_another_seed_draws_something_else(tmp_path):
    other = draw_demo(tmp_path / "b", COUNT, SIZE, seed=1)
    assert draw_demo(tmp_path / "a", COUNT, SIZE, seed=0) == other
    first, second = hashes(tmp_path / "a"), hashes(tmp_path / "b")
    assert (len(first), len(second), len(first & second)) == (COUNT, COUNT, 0)


def hashes(folder: Path) -> set[str]:
    return {sha256_file(path) for path in folder.rglob("*.jpg")}


def test_a_larger_set_holds_the_pictures_of_a_smaller_one(tmp_path):
    draw_demo(tmp_path / "a", COUNT, SIZE)
    draw_demo(tmp_path / "b", COUNT + 40, SIZE)
    small, large = hashes(tmp_path / "a"), hashes(tmp_path / "b")
    assert small < large
    assert len(large) == COUNT + 40


@pytest.mark.demo
def test_the_default_set_is_what_dvc_records(tmp_path):
    draw_demo(tmp_path / "data", workers=2)
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    record(tmp_path)
    assert recorded(tmp_path) == DEFAULT_MD5
    size = sum(path.stat().st_size for path in (tmp_path / "data").rglob("*.*"))
    assert size < 12_000_000
