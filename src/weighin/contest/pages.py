"""A board as files and as text; its pages are self-contained files, filled by Jinja2.

leaderboard.json      every line with all its figures
leaderboard.csv       a row a line
leaderboard.html      everything, for who organizes
public.html           the public part alone, which may be shown while a contest runs
submissions/*.html    a page for the authors of each, of the public part alone
pages.json            the hash of each page, by which those of teams that are gone are removed
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from weighin.contest.ranking import (
    Board,
    Line,
    Standing,
    broken_limits,
)
from weighin.files import read_json, sha256, sha256_file, write_csv, write_json, write_text
from weighin.grading.score import Metrics, score
from weighin.params import Contest
from weighin.report.formatting import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    STYLE,
    canvas,
    environment,
    inline,
    saved,
    several,
    shorten,
    style,
)
from weighin.validation import check_value

FOLDER, PAGES = "submissions", "pages.json"
COLUMNS = (
    *("rank", "rank_best", "rank_worst", "team", "state", "score", "score_low", "score_high"),
    *("f1", "accuracy", "macs", "parameters", "bytes", "public_rank", "public_score"),
    *("said", "rebuilt"),
)
OF_OUTCOME = ("team", "state", "said", "fix", "sha256", "bytes", "notes")
TEMPLATES = Path(__file__).parent / "templates"
REDUCED = (("macs", "multiply_bits", "MACs"), ("parameters", "parameter_bits", "parameters"))
QUALITIES = (("f1", "F1"), ("accuracy", "accuracy"))
PARTS = 10_000  # of a share: what is told of F1 and accuracy has four digits
FARTHEST = 3  # so many moves are shown in color
Point = tuple[float, float, str]  # million MACs, F1, team


def write_board(board: Board, out: Path) -> None:
    """Write the board as JSON, CSV and pages: the whole one, the public one, one a submission."""
    write_json(out / "leaderboard.json", facts(board))
    write_csv(out / "leaderboard.csv", COLUMNS, (_row(line) for line in board.lines))
    write_pages(board, out)


def facts(board: Board) -> dict[str, Any]:
    """Return what leaderboard.json holds."""
    return {
        "contest": asdict(replace(board.contest, score=board.formula)),
        "notes": list(board.notes),
        "images": {"private": board.private_images, "public": board.public_images},
        "submissions": [
            {
                **{name: getattr(line.outcome, name) for name in OF_OUTCOME},
                "model": line.outcome.costs and asdict(line.outcome.costs),
                "private": line.private and asdict(line.private),
                "public": line.public and asdict(line.public),
                "same_as": list(line.same_as),
                "rebuilt": line.rebuilt,
            }
            for line in board.lines
        ],
    }


def _row(line: Line) -> list[object]:
    one, public, costs = line.deciding, line.public, line.outcome.costs
    row: dict[str, object] = {"team": _text(line.team), "state": line.outcome.state}
    if one and costs:
        row |= {"rank": one.rank, "rank_best": one.best_rank, "rank_worst": one.worst_rank}
        numbers = {"score": one.score, "score_low": one.low, "score_high": one.high}
        numbers |= {"f1": one.f1, "accuracy": one.accuracy}
        row |= {name: f"{value:.6f}" for name, value in numbers.items()}
        row |= {"macs": costs.macs, "parameters": costs.parameters, "bytes": line.outcome.bytes}
    if public:
        row |= {"public_rank": public.rank, "public_score": f"{public.score:.6f}"}
    said = "; ".join(filter(None, (line.outcome.said, *line.outcome.notes)))
    row |= {"said": _text(said), "rebuilt": _text(line.rebuilt)}
    return [row.get(name, "") for name in COLUMNS]


def _text(value: str) -> str:
    """Return a text of a team's choice as one that no spreadsheet takes for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value


def lines_of(board: Board) -> list[str]:
    """Return the board as lines for a terminal."""
    part, images = board.deciding
    shown = [*board.notes, f"ranked on the {part} part, {several(images, 'image')}"]
    for line in board.lines:
        one = line.deciding
        costs = line.outcome.costs
        if one is None or costs is None:
            shown.append(f"   -  {line.team}: {line.outcome.state}: {line.outcome.said}")
            continue
        ranks = f"{one.best_rank} to {one.worst_rank}"
        same = f"; the same as {', '.join(line.same_as)}" if line.same_as else ""
        notes = "".join(f"; {note}" for note in line.outcome.notes)
        shown.append(
            f"{one.rank:>4}  {line.team}: score {one.score:.4f} ({one.low:.4f} to {one.high:.4f}), "
            f"F1 {one.f1:.4f}, {costs.macs:,} MACs; rank {ranks} at 95 %{same}{notes}"
        )
    return shown


def write_pages(board: Board, out: Path) -> None:
    """Write the board's pages and one page a submission into `out`.

    A page of an earlier run that this board lacks is removed, unless somebody changed it since.
    """
    texts = _pages(board)
    for name, digest in _written_before(out).items():
        if name not in texts and (out / name).is_file() and sha256_file(out / name) == digest:
            (out / name).unlink()
    for name, text in texts.items():
        write_text(out / name, text)
    write_json(out / PAGES, {name: sha256(text.encode()) for name, text in texts.items()})


def _written_before(out: Path) -> dict[str, str]:
    """Return {page: its hash} of an earlier run; empty where it left no sound list."""
    try:
        found, faults = check_value(dict[str, str], read_json(out / PAGES), PAGES)
    except (OSError, ValueError, RecursionError):
        return {}
    return {} if faults else found


def _pages(board: Board) -> dict[str, str]:
    """Return {file name: text} of the board's pages."""
    pages = page_names([line.team for line in board.lines])
    public = board.public if board.public_images else None
    texts = {"leaderboard.html": _board_page(board, pages)}
    texts |= {"public.html": _board_page(public, pages)} if public else {}
    lines = (public or board).lines
    for line in lines:
        better = _next_better(line, lines) if public else None
        steps = next_steps(line, better.score, board.contest) if better else ()
        values = {"line": replace(line, private=None), "better": better, "steps": steps}
        page = f"{FOLDER}/{pages[line.team]}"
        texts[page] = _render("submission.html", board=public, **values)
    return texts


def _board_page(board: Board, pages: dict[str, str]) -> str:
    both = board.public_images > 0 and board.private_images > 0
    graded = sum(1 for line in board.lines if line.deciding)
    pictures = {
        "front": inline(
            front(board),
            "front",
            f"MACs against macro F1 of {graded} submissions; a line joins those that none beats",
        )
    }
    if both:
        alt = "Each submission's rank on the public part, joined to its rank on the private part"
        pictures["shake_up"] = inline(shake_up(board), "shake-up", alt)
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


def _next_better(line: Line, lines: Sequence[Line]) -> Standing | None:
    """Return the standing with the next better score, of lines in their order; a tie is none."""
    own = line.deciding
    placed = [other.deciding for other in lines if other.deciding]
    better = [each for each in placed if own and each.score < own.score]
    return better[-1] if better else None


def next_steps(line: Line, target: float, contest: Contest) -> tuple[str, ...]:
    """Return what would bring a submission to a better score, each step alone.

    A submission that breaks a limit gets none: to keep it comes first, and a note says so.
    """
    one, costs = line.deciding, line.outcome.costs
    if one is None or costs is None:
        return ()
    cost = costs.of_file(line.outcome.bytes)
    if broken_limits(contest, cost):
        return ()
    own = Metrics.of(one.f1, one.accuracy, cost)

    def least(most: int, changed: Callable[[int], Metrics]) -> int | None:
        """Return the least step up to `most` that is enough; from it on all are."""

        def reaches(step: int) -> bool:
            return score(contest, changed(step)).value <= target

        steps = range(1, most + 1)
        return steps[bisect_left(steps, True, key=reaches)] if steps and reaches(most) else None

    steps = []
    for count, bits, unit in REDUCED:
        cut = least(getattr(own, count) - 1, partial(_lighter, own, count, bits))
        if cut is not None:
            steps.append(f"{cut:,} fewer {unit}")
    for quality, name in QUALITIES:
        gain = least(PARTS, partial(_better, own, quality))
        if gain is not None:
            steps.append(f"{gain / PARTS:.4f} more {name}")
    return tuple(steps)


def _lighter(own: Metrics, count: str, bits: str, cut: int) -> Metrics:
    """Return the metrics of a model with less of what is counted, of the same mean width."""
    total = getattr(own, count)
    width = getattr(own, bits) / total
    return replace(own, **{count: total - cut, bits: round(width * (total - cut))})


def _better(own: Metrics, quality: str, gain: int) -> Metrics:
    return replace(own, **{quality: min(1.0, getattr(own, quality) + gain / PARTS)})


def front(board: Board) -> str:
    """Return the picture of all submissions: MACs against macro F1, and the front of the best."""
    points = [
        (costs.macs / 1e6, standing.f1, line.team)
        for line in board.lines
        if (standing := line.deciding) and (costs := line.outcome.costs)
    ]
    with style("front"):
        figure, axes = canvas(7.4, 4.2, 0.7, 0.6, right=0.9)
        axes.grid(True)
        axes.set_xlabel("million MACs an image")
        axes.set_ylabel("macro F1")
        if points:
            macs, f1, _ = zip(*points, strict=True)
            axes.scatter(macs, f1, s=28, color=BLUE, zorder=3)
            best = _front(points)
            axes.step(*zip(*((x, y) for x, y, _ in best), strict=True), where="post", color=ORANGE)
            for x, y, team in _apart(best):
                axes.annotate(shorten(team, 16), (x, y), xytext=(7, -3), textcoords="offset points")
        return saved(figure)


def _front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats in both, fewest MACs first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each[0], -each[1], each[2])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def _apart(points: Sequence[Point]) -> list[Point]:
    """Return the points whose names have room: none is within a line's height of the one before."""
    high = max(y for _, y, _ in points) - min(y for _, y, _ in points)
    shown: list[Point] = []
    for point in reversed(points):
        if not shown or shown[-1][1] - point[1] > high / 16:
            shown.append(point)
    return shown


def shake_up(board: Board) -> str:
    """Return the picture of both parts: each submission's public place joined to the other."""
    both = [(line.public, line.private, line.team) for line in board.lines]
    ranks = {
        team: (public.rank, private.rank) for public, private, team in both if public and private
    }
    places = [
        {team: place for place, team in enumerate(sorted(ranks, key=lambda t: (ranks[t][part], t)))}
        for part in (0, 1)
    ]
    moves = {team: private - public for team, (public, private) in ranks.items()}
    far = max([2, *sorted(map(abs, moves.values()))[-FARTHEST : -FARTHEST + 1]])
    with style("shake-up"):
        figure, axes = canvas(6.4, 0.7 + 0.22 * len(moves), 2.1, 0.1, right=2.1, top=0.4)
        axes.set(xlim=(0, 1), ylim=(len(moves) - 0.4, -0.6))
        axes.axis("off")
        axes.text(0, -0.7, "public", ha="right", va="bottom", weight="bold")
        axes.text(1, -0.7, "private", ha="left", va="bottom", weight="bold")
        for team, move in moves.items():
            strong, rose = abs(move) >= far, move < 0
            color = (GREEN if rose else ORANGE) if strong else MUTED
            ends = [place[team] for place in places]
            width = 2.2 if strong else 0.9
            axes.plot((0, 1), ends, color=color, linewidth=width, marker="o", markersize=4)
            name, ink = shorten(team, 20), color if strong else INK
            left, right = f"{name}  {ranks[team][0]}", f"{ranks[team][1]}  {name}"
            axes.text(-0.04, ends[0], left, ha="right", va="center", color=ink)
            axes.text(1.04, ends[1], right, ha="left", va="center", color=ink)
        return saved(figure)


@cache
def _environment() -> Environment:
    found = environment(TEMPLATES)
    found.filters |= {
        "count": "{:,.0f}".format,
        "four": "{:.4f}".format,
        "percent": "{:.0%}".format,
    }
    styles = (STYLE, TEMPLATES / "board.css")
    found.globals["style"] = Markup("".join(path.read_text(encoding="utf-8") for path in styles))
    return found


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
