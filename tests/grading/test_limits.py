"""Work that takes too long, too much memory, or crashes ends with a sentence and a code."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import helper

from weighin.errors import MemoryLimitError, TimeLimitError
from weighin.grading.grade import check_limits
from weighin.grading.limits import Limits
from weighin.grading.model import open_model
from weighin.grading.recount import recount

Build = Callable[..., Path]
SRC = Path(__file__).parents[2] / "src"
# a process of its own: pytest has threads, which a fork does not copy
RUN = """
import os, signal, sys, time
from weighin.grading.limits import Limits, limited
def work():
    {work}
    return 0
sys.exit(limited(work, Limits({limits})))
"""


def limited(work: str, limits: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN.format(work=work, limits=limits)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SRC)},
        check=False,
    )


@pytest.mark.parametrize(
    ("work", "limits", "code", "words"),
    [
        ("print('fine')", "", 0, ""),
        ("time.sleep(60)", "0.3", 12, "it takes more than the 0.3 s it may take"),
        ("bytearray(2**29)", "9, 2**28", 13, "it takes more than the 256 MB it may take"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "9", 8, "it crashed ONNX Runtime (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "9", 13, "for want of memory"),
    ],
)
def test_limits(work: str, limits: str, code: int, words: str) -> None:
    done = limited(work, limits)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == (2 if code else 0)


def test_the_child_ends_with_its_parent() -> None:
    code = RUN.format(work="print(os.getpid(), flush=True); time.sleep(60)", limits="60")
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    assert parent.stdout is not None
    child = Path("/proc", parent.stdout.readline().decode().strip())
    assert child.is_dir()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while child.is_dir() and "State:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_no_machine_could_do_is_refused_before_it_runs(build: Build) -> None:
    wide = helper.make_node("Conv", ["images", "k"], ["x"], name="wide", pads=[1] * 4)
    weights = {"k": [[[[1.0] * 3] * 3] * 3] * 3}
    model = open_model(build(before=[wide], weights=weights, size=(1024, 1024)))
    count = recount(model)
    check_limits(model, count, 20, Limits(seconds=60, memory=2**30))
    with pytest.raises(TimeLimitError) as late:
        check_limits(model, count, 10**9, Limits(seconds=60))
    assert re.search(r"operations, and .* numbers to write, take at least", late.value.problem)
    with pytest.raises(MemoryLimitError) as large:
        check_limits(model, count, 20, Limits(memory=2**20))
    assert "one operator takes at least" in large.value.problem
    assert "--memory" in large.value.fix
    assert replace(Limits(), seconds=1).out_of_time().exit_code == 12


@pytest.mark.parametrize("option", ["--memory", "--seconds"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "x"])
def test_a_limit_that_is_none_is_wrong_usage(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from weighin.grading.__main__ import main

    with pytest.raises(SystemExit) as ended:
        main(["model.onnx", "photos", str(tmp_path), option, value])
    assert ended.value.code == 2
    assert f"argument {option}: {value} is not a number above 0" in capsys.readouterr().err
