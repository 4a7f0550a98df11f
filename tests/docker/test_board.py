"""A board in a real engine, with submissions that got past the grader and run code of their own.

Their place is taken by Python programs: the image of these tests runs a model that is one. What
they can then do is what a fault of the runtime could do at the worst.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.contest.conftest import model_bytes
from tests.pipeline.project import environment
from tests.small_models import CLASSES, COLOURS
from weighin.contest.grading import COUNTED
from weighin.contest.handout import write_handout
from weighin.grading.score import WASTE

from .conftest import ROOT, Built, Done, Engine

pytestmark = pytest.mark.docker
TAKEN_OVER = """
import runpy, sys
code = open("/model.onnx", "rb").read()
if code.startswith(b"import "):
    exec(code)
else:
    sys.argv[1:1] = ["/model.onnx", "/input", "/output"]
    runpy.run_module("weighin.grading", run_name="__main__", alter_sys=True)
"""
FORKS = "while 1:\n    try: os.fork()\n    except OSError: time.sleep(1)"
HONEST_LOOKING = {
    "model": {**dict.fromkeys(COUNTED, 1), "classes": CLASSES},
    "speed": {"images_per_second": 1.0},
    "margin": {"smallest": None},
    "unreadable": {},
}
HOSTILE = {  # team: what it runs, its state, a part of what is said of it
    "time": ("signal.signal(15, signal.SIG_IGN)\nwhile 1: time.sleep(9)", "too slow", "the 3 s"),
    "memory": ("x = [bytearray(2**26) for _ in range(99)]", "too much memory", "want of memory"),
    "forks": (FORKS, "too slow", "the 3 s"),
    "words": ("while 1: os.write(2, b'x' * 9999)", "too much output", "writes more"),
    "prints": ("for _ in range(9**5): os.write(1, b'x' * 9999)", "crashed", "not what it writes"),
    "disk": (
        "for n in range(9**9): open(f'/output/{n}', 'wb').write(bytes(2**24))",
        "too much output",
        "writes more",
    ),
    "link": ("os.symlink('TRUTH', '/output/submission.csv'); write()", "crashed", "not what"),
    "pipe": ("os.mkfifo('/output/submission.csv'); write()", "crashed", "not what it writes"),
    "junk": ("open('/output/grade.json', 'w').write('[' * 99999)", "crashed", "not what"),
    "nan": ("FACTS['model']['macs'] = float('nan'); write()", "crashed", "not what it writes"),
    "code5": ("sys.exit(5)", "crashed", "without a word"),
    "code125": ("os.write(2, b'no such image'); os._exit(125)", "crashed", "no such image"),
    "reads": ("sys.exit(str(os.listdir('/')))", "crashed", "input"),
}
START = f"""import os, sys, time, json, signal
FACTS = {HONEST_LOOKING!r}
def write():
    json.dump(FACTS, open('/output/grade.json', 'w'))
"""


@pytest.fixture(scope="module")
def grader(image: Built) -> Built:
    return image


@pytest.fixture(scope="module")
def taken_over(engine: Engine, grader: Built) -> Iterator[str]:
    """The grader's image, but it runs a model that is a Python program."""
    with engine.with_entrypoint(grader, "taken-over", "python3", "-c", TAKEN_OVER) as tag:
        yield tag


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A secret test folder, its truth, and entries: one honest model and the hostile ones."""
    place = tmp_path_factory.mktemp("contest")
    (place / "test").mkdir()
    rows = []
    for number in range(12):
        name = CLASSES[number % 3]
        Image.new("RGB", (8, 8), COLOURS[name]).save(place / f"test/{number}.png")
        rows.append(f"{number}.png,{name}\n")
    (place / "truth.csv").write_text("filename,class\n" + "".join(rows))
    (place / "entries").mkdir()
    (place / "entries/honest.onnx").write_bytes(model_bytes())
    for team, (code, _, _) in HOSTILE.items():
        code = START + code.replace("TRUTH", str(place / "truth.csv"))
        (place / f"entries/{team}.onnx").write_text(code)
    return place


def leaderboard(engine: Engine, contest: Path, image: str) -> Done:
    command = (sys.executable, "-m", "weighin", "leaderboard", "entries", "board")
    more = ("--test", "test", "--truth", "truth.csv", "--container", image)
    limits = ("--seconds", "3", "--memory", "300", "--jobs", "5", "--resamples", "100")
    env = {**environment(ROOT), **engine.environment}
    return engine.run(*command, *more, *limits, cwd=contest, env=env)


@pytest.fixture(scope="module")
def board(engine: Engine, contest: Path, taken_over: str) -> dict[str, Any]:
    done = leaderboard(engine, contest, taken_over)
    assert done.returncode == 0, done.stderr
    found = json.loads((contest / "board/leaderboard.json").read_text(encoding="utf-8"))
    return {line["team"]: line for line in found["submissions"]}


def test_the_honest_one_is_ranked(board: dict[str, Any]) -> None:
    assert board.keys() == {"honest", *HOSTILE}
    assert board["honest"]["private"]["f1"] == 1
    assert board["honest"]["model"]["macs"] == 204


@pytest.mark.parametrize("team", HOSTILE)
def test_a_hostile_one_has_a_line_and_no_rank(board: dict[str, Any], team: str) -> None:
    _, state, said = HOSTILE[team]
    assert (board[team]["state"], board[team]["private"]) == (state, None)
    assert said in board[team]["said"]


def test_the_truth_was_out_of_reach(board: dict[str, Any]) -> None:
    assert "truth" not in board["reads"]["said"]
    assert "input" in board["reads"]["said"]


def test_nothing_is_left(engine: Engine, board: dict[str, Any], contest: Path) -> None:
    left = engine.run("docker", "ps", "--all", "--quiet", "--filter", "name=weighin-")
    assert left.stdout == ""
    assert sum(path.stat().st_size for path in contest.rglob("*") if path.is_file()) < 2_000_000


def test_no_image_no_board(engine: Engine, contest: Path) -> None:
    done = leaderboard(engine, contest, "no-such-image")
    assert done.returncode == 5
    assert "no container engine has the image no-such-image" in done.stderr
    assert "make images" in done.stderr


def test_codabench_runs_the_image_that_a_handout_describes(
    engine: Engine, grader: Built, contest: Path
) -> None:
    """As Codabench's worker does: its command, its folders, no capabilities."""
    place = contest / "handout"
    write_handout(place, WASTE, "Contest", grader.tag)
    tag = f"{grader.tag}-codabench"
    done = engine.run("docker", "build", "-q", "-t", tag, place / "codabench")
    assert done.returncode == 0, done.stderr
    root = contest / "app"
    shutil.copytree(contest / "test", root / "input/ref/test")
    shutil.copy(contest / "truth.csv", root / "input/ref/truth.csv")
    (root / "input/res").mkdir()
    (root / "output").mkdir()
    shutil.copy(contest / "entries/honest.onnx", root / "input/res/model.onnx")
    shutil.copytree(place / "codabench/scoring_program", root / "program")
    mounts = [f"{root / part}:/app/{part}" for part in ("input", "output", "program")]
    flags = [part for mount in mounts for part in ("-v", mount)]
    more = ("--network", "none", "--cap-drop", "ALL", "-w", "/app/program")
    command = yaml.safe_load((root / "program/metadata.yaml").read_text())["command"].split()
    done = engine.run("docker", "run", "--rm", *more, *flags, tag, *command)
    engine.run("docker", "rmi", "--force", tag)
    assert done.returncode == 0, done.stderr
    scores = json.loads((root / "output/scores.json").read_text())
    assert (scores["f1"], scores["macs"]) == (1, 204)


def test_an_interrupt_ends_the_containers(engine: Engine, contest: Path, taken_over: str) -> None:
    """Ctrl-C while a time bomb runs: the command ends at once, and so does the container."""
    (contest / "slow").mkdir()
    (contest / "slow/time.onnx").write_bytes((contest / "entries/time.onnx").read_bytes())
    command = [sys.executable, "-m", "weighin", "leaderboard", "slow", "stopped"]
    more = ["--test", "test", "--truth", "truth.csv", "--container", taken_over]
    env = {**os.environ, **environment(ROOT), **engine.environment}
    running = subprocess.Popen([*command, *more], cwd=contest, env=env, stderr=subprocess.PIPE)
    names = ("docker", "ps", "--quiet", "--filter", "name=weighin-")
    end = time.monotonic() + 60
    while not engine.run(*names).stdout and time.monotonic() < end:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130, said
    assert b"Traceback" not in said
    assert engine.run(*names).stdout == ""
