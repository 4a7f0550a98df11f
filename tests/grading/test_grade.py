"""The grader as it is run: files, exit codes, one-line errors, and nothing after a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weighin.errors import (
    DataError,
    HiddenWorkError,
    MemoryLimitError,
    ModelError,
    OutputError,
    ParamsError,
    TimeLimitError,
)

Build = Callable[..., Path]
SRC = Path(__file__).parents[2] / "src"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "weighin.grading", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SRC)} | environment,
        check=False,
    )


def facts(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "grade.json").read_text(encoding="utf-8"))
    return loaded


SUBMISSION = """filename,class
below/blue.jpg,blue
below/green.jpg,green
below/red.jpg,red
blue.png,blue
green.png,green
red.png,red
"""


def test_writes_the_submission_and_the_grade(build: Build, pictures: Path, tmp_path: Path) -> None:
    (pictures / "bad.jpg").write_bytes(b"")
    truth = tmp_path / "truth.csv"
    truth.write_text(SUBMISSION.replace("red.png,red", "red.png,blue"), encoding="utf-8")
    done = run(build(), pictures, tmp_path / "out", "--truth", truth)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "7 images labelled, 1 of them unreadable",
        "204 MACs and 12 parameters, counted from the graph",
        f"{(tmp_path / 'model.onnx').stat().st_size} bytes, 780 bytes of activations at their peak",
        "closest call 2 (below/blue.jpg); 0 images under 0.0001",
        "truth: it leaves out 1 of the 7 files of the folder, which are not scored",
        "macro F1 0.8222, score 0.0172",
    ]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["grade.json", "submission.csv"]
    text = (tmp_path / "out/submission.csv").read_bytes().decode()
    assert text == SUBMISSION.replace("class\n", "class\nbad.jpg,green\n")
    found = facts(tmp_path / "out")
    assert found["unreadable"] == {"bad.jpg": "zero-byte"}
    assert found["quality"]["f1"] == pytest.approx((0.8 + 1 + 2 / 3) / 3)
    assert found["quality"]["without_truth"] == 1
    assert found["quality"]["per_class"]["blue"] == {
        "images": 3,
        "predicted": 2,
        "precision": 1.0,
        "recall": 2 / 3,
        "f1": 0.8,
    }


def test_same_bytes_in_another_process(build: Build, pictures: Path, tmp_path: Path) -> None:
    model = build()
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, seed in zip(outs, "12", strict=True):
        assert run(model, pictures, out, PYTHONHASHSEED=seed, TZ=f"UTC+{seed}").returncode == 0
    one, two = ((out / "submission.csv").read_bytes() for out in outs)
    assert one == two
    first, second = map(facts, outs)
    assert first.pop("speed") and second.pop("speed")
    assert first == second
    other = build(weights={"b": [9.0, 0, 0]})  # the negative control: another model
    assert run(other, pictures, outs[1]).returncode == 0
    assert (outs[1] / "submission.csv").read_bytes() != one


ERRORS: list[tuple[str, int, str]] = [
    ("model", 8, "error: {tmp}/no.onnx is not a file"),
    ("forged", 8, "error: {tmp}/model.onnx: its metadata claims 5 MACs, its graph does 204"),
    ("folder", 5, "error: {tmp}/none is not a folder"),
    ("strict", 5, "error: bad.jpg: zero-byte"),
    (
        "truth",
        5,
        "error: {tmp}/truth.csv has no column that is known to hold file names; it has a, b",
    ),
    (
        "absent",
        5,
        "error: the truth names 1 files that the folder lacks, such as gone.png; "
        "the folder holds such as bad.jpg",
    ),
    ("contest", 4, "error: {tmp}/c.yaml (contest): floor_f1 is 7; it must be a number 0 to 1"),
    ("out", 9, "error: cannot write to {tmp}/model.onnx/out: Not a directory"),
]


@pytest.mark.parametrize(("case", "code", "words"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors_are_two_lines_and_write_nothing(
    build: Build, pictures: Path, tmp_path: Path, case: str, code: int, words: str
) -> None:
    (pictures / "bad.jpg").write_bytes(b"")
    truth, contest, out = tmp_path / "truth.csv", tmp_path / "c.yaml", tmp_path / "out"
    truth.write_text("a,b\n" if case == "truth" else "filename,class\ngone.png,red\n")
    contest.write_text(
        "contest: {score: waste, max_macs: 1000, reference_macs: 1, reference_params: 1, "
        "reference_f1: 1, floor_f1: 7}\n"
    )
    model = build(metadata={"macs": "5"}) if case == "forged" else build()
    arguments: list[object] = {
        "model": [tmp_path / "no.onnx", pictures, out],
        "folder": [model, tmp_path / "none", out],
        "strict": [model, pictures, out, "--strict"],
        "truth": [model, pictures, out, "--truth", truth],
        "absent": [model, pictures, out, "--truth", truth],
        "contest": [model, pictures, out, "--contest", contest],
        "out": [model, pictures, model / "out"],
    }.get(case, [model, pictures, out])
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == words.format(tmp=tmp_path)
    assert lines[1].startswith("  to fix: ")
    assert len(lines) == 2
    assert done.stdout == ""
    assert not out.exists() or list(out.iterdir()) == []


def test_wrong_usage() -> None:
    assert run().returncode == 2


def test_help_says_every_exit_code() -> None:
    said = " ".join(run("--help").stdout.split())
    codes = {int(code) for code in re.findall(r"[:;] (\d+) ", said)}
    kinds = (ParamsError, DataError, HiddenWorkError, ModelError, OutputError)
    limits = (TimeLimitError, MemoryLimitError)
    assert codes == {kind.exit_code for kind in kinds + limits} | {0, 2, 130, 143}


def born(process: subprocess.Popen[bytes]) -> list[str]:
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_kill_leaves_the_earlier_grade(
    build: Build, pictures: Path, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    model, out = build(), tmp_path / "out"
    assert run(model, pictures, out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.glob("[!.]*")}
    for i in range(20_000):
        (pictures / f"{i}.png").symlink_to("red.png")
    command = [sys.executable, "-m", "weighin.grading", str(model), str(pictures), str(out)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(SRC)})
    while not any(len(list(Path(f"/proc/{child}/task").iterdir())) > 2 for child in born(process)):
        time.sleep(0.02)  # until the workers of its child label
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(how)
    assert process.wait(30) == code
    assert {path.name: path.read_bytes() for path in out.glob("[!.]*")} == before


def test_a_disk_that_cannot_be_written(build: Build, pictures: Path) -> None:
    done = run(build(), pictures, "/proc/out")
    assert done.returncode == 9
    assert done.stderr.splitlines() == [
        "error: cannot write to /proc/out: No such file or directory",
        "  to fix: make the folder yourself (`mkdir -p OUT`) and run as its owner; "
        'in a container: `--user "$(id -u):$(id -g)" -v "$PWD/OUT":/output`',
    ]


def test_a_file_that_grows_too_large(build: Build, pictures: Path, tmp_path: Path) -> None:
    """A limit of 300 bytes a file stands for a full disk; the earlier grade stays as it was."""
    model, out = build(), tmp_path / "out"
    (pictures / ("n" * 240)).symlink_to("red.png")
    assert run(model, pictures, out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code = (
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "runpy.run_module('weighin.grading', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model, pictures, out],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SRC)},
        check=False,
    )
    assert done.returncode == 9
    assert (
        done.stderr.splitlines()[0] == f"error: cannot write {out}/submission.csv: File too large"
    )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_writes_nowhere_else_and_reports_to_nobody(
    build: Build, pictures: Path, tmp_path: Path
) -> None:
    """ONNX Runtime keeps a file under HOME about what it reports, unless it is told not to."""
    home = tmp_path / "home"
    home.mkdir()
    done = run(build(), pictures, tmp_path / "out", HOME=str(home), CI="", XDG_CACHE_HOME="")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.iterdir()) == []


@pytest.mark.growth
def test_a_hundred_thousand_files(build: Build, pictures: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "many", tmp_path / "out"
    for i in range(100):
        (folder / f"{i:02}").mkdir(parents=True)
        red = folder / f"{i:02}/.red.png"  # no file system has a hundred thousand links to one file
        shutil.copy(pictures / "red.png", red)
        for j in range(1000):
            (folder / f"{i:02}/{j:03}.png").hardlink_to(red)
    assert run(build(), folder, out).returncode == 0
    lines = (out / "submission.csv").read_text().splitlines()
    assert lines[1:] == [f"{i:02}/{j:03}.png,red" for i in range(100) for j in range(1000)]
    assert facts(out)["images"] == 100_000


def test_imports_neither_torch_nor_the_rest_of_the_project() -> None:
    code = (
        "import sys, weighin.grading.grade, weighin.grading.__main__\n"
        "print(sorted(m for m in sys.modules if m.startswith('weighin.')))\n"
        "print(sorted({'torch', 'onnxscript', 'pandas', 'sklearn', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SRC)},
        check=True,
    )
    modules, foreign = map(eval_list, done.stdout.splitlines())
    packages = {name.split(".")[1] for name in modules}
    ground = {
        "errors",
        "files",
        "file_names",
        "label_csv",
        "text_table",
        "image_formats",
        "images",
        "determinism",
        "params",
        "validation",
        "parallel",
    }
    assert packages == {"grading"} | ground
    assert foreign == []


def eval_list(line: str) -> list[str]:
    loaded: list[str] = json.loads(line.replace("'", '"'))
    return loaded
