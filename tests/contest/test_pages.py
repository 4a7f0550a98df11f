"""What a board and its pages tell of each submission, beside its figures."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from weighin.contest.grading import Costs, Grader, Outcome
from weighin.contest.leaderboard import Options, lines_of, ranked, write_board
from weighin.contest.ranking import Board
from weighin.files import read_json
from weighin.grading.limits import Limits
from weighin.grading.score import WASTE

TRUTH = {f"{n}.png": "abc"[n % 3] for n in range(60)}
OPTIONS = Options(Grader(Path(), Limits(1)), Path("truth.csv"), resamples=100)


def answered(team: str, wrong: int, size: int = 1000, **costs: Any) -> Outcome:
    """Return a graded submission of so many bytes with so many wrong labels."""
    labels = {name: "a" if n < wrong else TRUTH[name] for n, name in enumerate(TRUTH)}
    counted = Costs(**{"macs": 1000, "parameters": 10, **costs}, **SPEED)
    return Outcome(team, "graded", sha256=team, bytes=size, costs=counted, labels=labels)


SPEED: dict[str, Any] = {"images_per_second": 1.0, "closest_call": None, "unreadable": 0}


def written(out: Path, board: Board) -> dict[str, str]:
    """Write a board; return the text of each page by its name."""
    write_board(board, out)
    return {path.stem: path.read_text(encoding="utf-8") for path in out.rglob("*.html")}


@pytest.mark.parametrize(
    ("rules", "costs", "told"),
    [
        ({"max_bytes": 900}, {}, "1,000 bytes of file, 100 over contest.max_bytes, which is 900"),
        (
            {"max_params": 8, "max_memory": 40},
            {"memory": 50},
            "10 parameters, 2 over contest.max_params, which is 8; "
            "50 bytes of activations, 10 over contest.max_memory, which is 40",
        ),
        (
            {"score": "accuracy", "max_macs": 999},
            {},
            "1,000 MACs, 1 over contest.max_macs, which is 999",
        ),
    ],
)
def test_a_broken_limit_is_told_wherever_the_score_is(
    tmp_path: Path, rules: dict[str, Any], costs: dict[str, int], told: str
) -> None:
    contest = replace(WASTE, **rules)
    board = ranked([answered("heavy", 3, **costs)], TRUTH, replace(OPTIONS, contest=contest))
    note = f"out of the contest, which adds 1,000 to a score: {told}"
    pages = written(tmp_path, board)
    assert note in pages["leaderboard"]
    assert note in pages["public"]
    assert f"O{note[1:]}." in pages["heavy"]
    assert lines_of(board)[-1].endswith(f"; {note}")
    assert read_json(tmp_path / "leaderboard.json")["submissions"][0]["notes"] == [note]
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        assert [row["said"] for row in csv.DictReader(file)] == [note]


def test_a_limit_that_no_score_asks_for_is_no_broken_one() -> None:
    contest = replace(WASTE, max_macs=1000)
    board = ranked([answered("heavy", 3, macs=2000)], TRUTH, replace(OPTIONS, contest=contest))
    assert board.lines[0].outcome.notes == ()
    deciding = board.lines[0].deciding
    assert deciding
    assert deciding.score < 1
