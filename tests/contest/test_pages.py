"""What a board and its pages tell of each submission, beside its figures."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from weighin.contest.grading import Costs, Grader, Outcome
from weighin.contest.leaderboard import Options, ranked
from weighin.contest.pages import lines_of, next_steps, write_board
from weighin.contest.ranking import Board, Line, Standing
from weighin.files import read_json
from weighin.grading.limits import Limits
from weighin.grading.score import WASTE, Metrics, score
from weighin.params import Contest

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


def test_pages_of_teams_that_are_gone_are_removed_and_no_file_of_others(tmp_path: Path) -> None:
    both = ranked([answered("gone", 3), answered("edited", 4), answered("here", 5)], TRUTH, OPTIONS)
    assert written(tmp_path, both).keys() == {"leaderboard", "public", "gone", "edited", "here"}
    (tmp_path / "submissions/edited.html").write_text("notes of mine")
    (tmp_path / "submissions/mine.html").write_text(
        (tmp_path / "submissions/gone.html").read_text(encoding="utf-8")
    )
    alone = ranked([answered("here", 5)], TRUTH, replace(OPTIONS, public_share=0))
    assert written(tmp_path, alone).keys() == {"leaderboard", "edited", "here", "mine"}
    written(tmp_path, both)
    (tmp_path / "pages.json").write_text('["public.html"]')  # no list of the board's
    assert "public" in written(tmp_path, alone)


# --- what would bring a submission to the next better score

MICRONET = replace(
    WASTE, score="micronet", reference_macs=1_000_000, reference_params=1000, floor_f1=0.5
)


def placed(contest: Contest, costs: Costs, f1: float, accuracy: float | None = None) -> Line:
    """Return the line of a model of 5,000 bytes on the public part."""
    quality = (f1, f1 if accuracy is None else accuracy)
    value = score(contest, Metrics.of(*quality, costs.of_file(5000))).value
    one = Standing(value, 0, 1, *quality, 1, 1, 1, None, 0.0, {})
    return Line(Outcome("team", "graded", bytes=5000, costs=costs), None, one)


def test_steps_reach_the_score_and_no_less_does() -> None:
    own = placed(WASTE, Costs(2_000_000, 10, **SPEED), 0.71)
    target = score(WASTE, Metrics(0.7, 0.7, 1_000_000, 10)).value
    fewer, better = next_steps(own, target, WASTE)
    assert fewer.endswith(" fewer MACs")
    assert better.endswith(" more F1")
    cut, gain = int(fewer.split()[0].replace(",", "")), float(better.split()[0])
    for macs, f1, reaches in (
        (2_000_000 - cut, 0.71, True),
        (2_000_000 - cut + 1, 0.71, False),
        (2_000_000, 0.71 + gain, True),
        (2_000_000, 0.71 + gain - 1e-4, False),
    ):
        assert (score(WASTE, Metrics(f1, f1, macs, 10)).value <= target) is reaches


@pytest.mark.parametrize(
    ("contest", "width", "steps"),
    [
        # 400 of 1,000 parameters and 100,000 of 1,000,000 MACs: 0.4 + 0.1; as int8 0.1 + 0.0625
        (MICRONET, 32, ("50,000 fewer MACs", "50 fewer parameters")),
        (MICRONET, 8, ("80,000 fewer MACs", "200 fewer parameters")),
        (replace(WASTE, score="accuracy"), 32, ("0.0500 more accuracy",)),
        (replace(WASTE, score="f1"), 32, ("0.0500 more F1",)),
    ],
)
def test_steps_are_what_the_score_asks_for(
    contest: Contest, width: int, steps: tuple[str, ...]
) -> None:
    costs = Costs(100_000, 400, **SPEED, parameter_bits=400 * width, multiply_bits=100_000 * width)
    own = placed(contest, costs, 0.7, 0.8)
    assert own.deciding
    assert next_steps(own, own.deciding.score - 0.05, contest) == steps


@pytest.mark.parametrize(
    "limit", [{"max_bytes": 4000}, {"max_params": 9}, {"score": "accuracy", "max_macs": 1999}]
)
def test_who_breaks_a_limit_is_told_no_step(limit: dict[str, Any]) -> None:
    contest = replace(WASTE, **limit)
    own = placed(contest, Costs(2000, 10, **SPEED), 0.7)
    assert own.deciding
    assert next_steps(own, own.deciding.score - 0.01, contest) == ()
    assert next_steps(own, own.deciding.score - 0.01, WASTE)  # the control


def test_a_page_names_the_next_better_score_past_a_tie(tmp_path: Path) -> None:
    options = replace(OPTIONS, contest=replace(WASTE, score="accuracy"), public_share=1)
    outcomes = [answered("best", 0), answered("one", 6), answered("two", 6)]
    pages = written(tmp_path, ranked(outcomes, TRUTH, options))
    told = "The next better score is 0.0000. This alone would reach it: 0.0667 more accuracy."
    assert told in " ".join(pages["one"].split())
    assert told in " ".join(pages["two"].split())
    assert "next better score" not in pages["best"]
