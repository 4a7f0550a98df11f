"""What a board costs over the grading in it: `python -m bench.leaderboard`.

    leaderboard.per_submission  one submission of a board against `python -m weighin.grading` of the
                                same model on the same images, each alone and in turns
    leaderboard.hundred_s       100 submissions on 4,083 drawn images: all of it, with two jobs

The network is the shipped `seed`; submissions differ in their weights.
"""

import csv
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench.figures import Figures, figure, is_quick, seconds, told
from weighin.determinism import pin

COMMAND = "python -m bench.leaderboard"
IMAGES, SUBMISSIONS = 4_083, 100  # of the contest's private test


def figures(quick: bool = False) -> Figures:
    """Return this part's figures; quick ones are those of few submissions."""
    from weighin.data.demo import draw_demo

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        draw_demo(place / "data", 3_000 if quick else 5 * IMAGES + 5, 96)
        test, truth = place / "data/test", place / "data/test_truth.csv"
        runs = [
            per_submission(place / f"{run}", test, truth, 8) for run in range(1 if quick else 5)
        ]
        found = {
            "leaderboard.per_submission": figure(runs, "ratio", "at most 1.15", COMMAND),
        }
        if not quick:
            entries = write_entries(place / "hundred", SUBMISSIONS, truth)
            spent = seconds(lambda: board(entries, place / "board", test, truth, 2))
            found["leaderboard.hundred_s"] = figure([spent], "s", "printed", COMMAND)
        return found


def per_submission(place: Path, test: Path, truth: Path, count: int) -> float:
    """Return the time of a board of `count` submissions over that of their gradings alone."""
    entries = write_entries(place / "entries", count, truth)
    alone = sum(seconds(partial(grade, path, test, place)) for path in entries.iterdir())
    return seconds(lambda: board(entries, place / "board", test, truth, 1)) / alone


def write_entries(folder: Path, count: int, truth: Path) -> Path:
    """Write `count` models of the classes of `truth`."""
    from weighin.network.build import build, initialize
    from weighin.network.export import export_onnx
    from weighin.network.spec import read_spec, shipped

    with truth.open(newline="") as file:
        classes = sorted({row["class"] for row in csv.DictReader(file)})
    facts = {"classes": json.dumps(classes), "fallback": classes[0], "turn_tall": "false"}
    spec = read_spec(shipped("seed"))
    folder.mkdir(parents=True)
    for number in range(count):
        network = build(spec, len(classes))
        initialize(network, number)
        export_onnx(network.eval(), spec.input, folder / f"team{number:03}.onnx", facts)
    return folder


def grade(model: Path, test: Path, place: Path) -> None:
    """Grade one model as its authors would."""
    command = (sys.executable, "-m", "weighin.grading", model, test, place / "out")
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def board(entries: Path, out: Path, test: Path, truth: Path, jobs: int) -> None:
    """Make a board as an organizer would."""
    command = (sys.executable, "-m", "weighin", "leaderboard", entries, out, "--test", test)
    more = ("--truth", truth, "--jobs", jobs)
    subprocess.run(list(map(str, (*command, *more))), check=True, capture_output=True)


if __name__ == "__main__":
    pin()
    print(told(figures(is_quick())))
