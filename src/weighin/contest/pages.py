"""The pages of a board: self-contained files, filled by Jinja2.

leaderboard.html      everything, for who organizes
public.html           the public part alone, which may be shown while a contest runs
submissions/*.html    a page for the authors of each, of the public part alone
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from weighin.contest.leaderboard import Board, Line
from weighin.contest.pictures import front, shake_up
from weighin.files import write_text
from weighin.grading.score import Metrics, score
from weighin.params import Contest
from weighin.report import svg
from weighin.report.rendering import STYLE, environment

FOLDER = "submissions"
TEMPLATES = Path(__file__).parent / "templates"


def write_pages(board: Board, out: Path) -> None:
    """Write the board's pages and one page a submission into `out`."""
    pages = page_names([line.team for line in board.lines])
    public = board.public if board.public_images else None
    for name, shown in (("leaderboard.html", board), ("public.html", public)):
        if shown is not None:
            write_text(out / name, _board_page(shown, pages))
    lines = (public or board).lines
    for line, above in zip(lines, (None, *lines), strict=False):
        steps = next_steps(line, above, board.contest) if public else ()
        values = {"line": replace(line, private=None), "above": above, "steps": steps}
        text = _render("submission.html", board=public, **values)
        write_text(out / FOLDER / pages[line.team], text)


def _board_page(board: Board, pages: dict[str, str]) -> str:
    both = board.public_images > 0 and board.private_images > 0
    graded = sum(1 for line in board.lines if line.deciding)
    pictures = {
        "front": svg.inline(
            front(board),
            "front",
            f"MACs against macro F1 of {graded} submissions; a line joins those that none beats",
        )
    }
    if both:
        alt = "Each submission's rank on the public part, joined to its rank on the private part"
        pictures["shake_up"] = svg.inline(shake_up(board), "shake-up", alt)
    classes = sorted(
        {name for line in board.lines if line.deciding for name in line.deciding.class_f1}
    )
    return _render(
        "leaderboard.html",
        board=board,
        both=both,
        graded=graded,
        pages=pages,
        pictures=pictures,
        classes=classes,
    )


def page_names(teams: Sequence[str]) -> dict[str, str]:
    """Return {team: file name}, of letters that every file system takes, no two alike."""
    names: dict[str, str] = {}
    for team in teams:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", team).strip("-")[:60].lower() or "team"
        number, name = 1, f"{plain}.html"
        while name in names.values():
            number += 1
            name = f"{plain}-{number}.html"
        names[team] = name
    return names


def next_steps(line: Line, above: Line | None, contest: Contest) -> tuple[str, ...]:
    """Return what alone would bring a submission to the score of the one above it."""
    one, costs = line.deciding, line.outcome.costs
    if one is None or costs is None or above is None or above.deciding is None:
        return ()
    target = above.deciding.score

    def reaches(macs: float, gain: float) -> bool:
        quality = (min(1.0, one.f1 + gain), min(1.0, one.accuracy + gain))
        return score(contest, Metrics(*quality, int(macs), costs.parameters)).value <= target

    fewer = _least(lambda cut: reaches(costs.macs - cut, 0), costs.macs)
    better = _least(lambda gain: reaches(costs.macs, gain), 1 - min(one.f1, one.accuracy))
    steps = [f"{fewer:,.0f} fewer MACs"] if fewer is not None else []
    steps += [f"{better:.4f} more F1"] if better is not None else []
    return tuple(steps)


def _least(holds: Callable[[float], bool], most: float) -> float | None:
    """Return the least value up to `most` for which something holds, which then goes on holding."""
    if not holds(most):
        return None
    low, high = 0.0, float(most)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@cache
def _environment() -> Environment:
    found = environment(TEMPLATES)
    found.filters |= {
        "count": "{:,.0f}".format,
        "four": "{:.4f}".format,
        "percent": "{:.0%}".format,
    }
    found.globals["style"] = Markup(STYLE.read_text(encoding="utf-8") + _own_style())
    return found


def _own_style() -> str:
    return (TEMPLATES / "board.css").read_text(encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
