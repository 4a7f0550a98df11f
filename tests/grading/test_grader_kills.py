"""A grader that is killed at any step of its writing leaves whole files that belong together."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from weighin.files import sha256

Build = Callable[..., Path]
SRC = Path(__file__).parents[2] / "src"

# forks once for each step, and kills the child just before that step
DRIVER = """
import os, signal, sys
from weighin.grading import __main__, grade
from weighin.files import sha256

def deadly(work):
    def run(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return work(*arguments, **options)
    return run

for step in ("replace", "unlink", "chmod", "fsync", "open", "close", "rename"):
    setattr(os, step, deadly(getattr(os, step)))
left = int(os.environ["STEP"])
sys.exit(__main__.main(sys.argv[1:]))
"""


def run(step: int, *arguments: Path) -> int:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(SRC), "STEP": str(step)},
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def test_kill_at_every_step(build: Build, pictures: Path, tmp_path: Path) -> None:
    out, never = tmp_path / "out", 10**9
    first = build()
    assert run(never, first, pictures, out) == 0
    old = (out / "submission.csv").read_text()
    second = build(weights={"b": [9.0, 0, 0]})  # everything is blue
    states = []
    for step in range(100):
        code = run(step, second, pictures, out)
        if code == 0:
            break
        assert code == 13  # the child was ended by SIGKILL, as the system does for want of memory
        text = (out / "submission.csv").read_text()
        assert text == old or text.count(",blue\n") == 6
        if (out / "grade.json").exists():
            graded = json.loads((out / "grade.json").read_text())["submission"]
            assert graded == sha256(text.encode())
        states.append(((out / "grade.json").exists(), text == old))
    # killed before, in the middle of, and after the exchange; the last run swept up behind them
    assert {(True, True), (False, False)} <= set(states)
    assert sorted(path.name for path in out.iterdir()) == ["grade.json", "submission.csv"]
