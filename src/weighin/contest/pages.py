"""leaderboard.html, and a page for each submission: self-contained files, filled by Jinja2."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from weighin.contest.leaderboard import Board
from weighin.files import write_text
from weighin.report import svg
from weighin.report.rendering import STYLE, environment

FOLDER = "submissions"
TEMPLATES = Path(__file__).parent / "templates"


def write_pages(board: Board, out: Path) -> None:
    """Write the board's page and one page a submission into `out`."""
    pages = page_names([line.team for line in board.lines])
    picture = svg.inline(front(board), "front", _alt(board))
    text = _render("leaderboard.html", board=board, pages=pages, picture=picture)
    write_text(out / "leaderboard.html", text)
    for line in board.lines:
        text = _render("submission.html", board=board, line=line)
        write_text(out / FOLDER / pages[line.team], text)


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


def front(board: Board) -> str:
    """Return the picture of all submissions: MACs against macro F1, and the front of the best."""
    points = [
        (costs.macs / 1e6, standing.f1, line.team)
        for line in board.lines
        if (standing := line.deciding) and (costs := line.outcome.costs)
    ]
    with svg.style("front"):
        figure, axes = svg.canvas(6.5, 4.0, 0.7, 0.6)
        axes.grid(True)
        axes.set_xlabel("million MACs an image")
        axes.set_ylabel("macro F1")
        if points:
            macs, f1, _ = zip(*points, strict=True)
            axes.scatter(macs, f1, s=28, color=svg.BLUE, zorder=3)
            best = _front(points)
            axes.step(
                *zip(*((x, y) for x, y, _ in best), strict=True), where="post", color=svg.ORANGE
            )
            for x, y, team in best:
                axes.annotate(
                    svg.shorten(team, 20), (x, y), xytext=(4, 4), textcoords="offset points"
                )
        return svg.saved(figure)


def _front(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Return the points that no other one beats in both, fewest MACs first."""
    best: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda each: (each[0], -each[1], each[2])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def _alt(board: Board) -> str:
    graded = sum(1 for line in board.lines if line.outcome.is_graded)
    return f"MACs against macro F1 of {graded} submissions; a line joins those that none beats"


@cache
def _environment() -> Environment:
    found = environment(TEMPLATES)
    found.filters |= {"count": "{:,}".format, "four": "{:.4f}".format}
    found.globals["style"] = Markup(STYLE.read_text(encoding="utf-8"))
    return found


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
