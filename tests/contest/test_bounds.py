"""What does not end, writes too much or must stop is ended, with all that it started."""

import os
import time
from pathlib import Path
from threading import Event, Timer

import pytest

from weighin.contest import grading
from weighin.contest.grading import Ended, bounded


def run(script: str, folder: Path, seconds: float = 20, stopped: Event | None = None) -> Ended:
    return bounded(("sh", "-c", script), seconds, folder, stopped or Event(), environment=MARK)


MARK = {"MARK": f"bomb-{os.getpid()}"}


def assert_nothing_is_left() -> None:
    end = time.monotonic() + 10  # what was killed may take a moment to be gone
    mark = f"MARK={MARK['MARK']}".encode()
    while left := [p for p in Path("/proc").glob("[0-9]*/environ") if mark in _bytes(p)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_end_of_its_own(tmp_path: Path) -> None:
    assert run("echo words >&2; exit 7", tmp_path) == Ended(7, "", "words\n")
    assert run("kill -KILL $$", tmp_path).code == -9
    assert run("for i in $(seq 3000); do echo $i >&2; done", tmp_path).said.endswith("3000\n")


def test_a_time_bomb(tmp_path: Path) -> None:
    assert run("sleep 300 & sleep 300", tmp_path, 0.2).over == "time"
    assert_nothing_is_left()


@pytest.mark.parametrize(
    "flood",
    [
        "while :; do echo flood >&2; done",
        "yes > out/one",
        "mkdir out/deep; i=0; while :; do i=$((i+1)); : > out/deep/$i; done",
    ],
)
def test_a_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flood: str) -> None:
    monkeypatch.setattr(grading, "MAX_WRITTEN", 2**21)
    monkeypatch.setattr(grading, "PAUSE", 0.02)
    (tmp_path / "out").mkdir()
    began = time.monotonic()
    ended = run(f"cd {tmp_path}; {flood}", tmp_path / "out")
    assert ended.over == "output"
    assert time.monotonic() - began < 15
    assert_nothing_is_left()
    # the control: without the bound it goes on
    monkeypatch.setattr(grading, "MAX_WRITTEN", 2**40)
    monkeypatch.setattr(grading, "MAX_MESSAGE", 2**40)
    assert run(f"cd {tmp_path}; {flood}", tmp_path / "out", 0.3).over == "time"


def test_another_thread_stops_it(tmp_path: Path) -> None:
    stopped = Event()
    Timer(0.2, stopped.set).start()
    assert run("sleep 300", tmp_path, 300, stopped).over == "stopped"
    assert_nothing_is_left()
