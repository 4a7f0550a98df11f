"""The pictures of a board: quality against cost, and how ranks moved between its two parts."""

from collections.abc import Sequence

from weighin.contest.leaderboard import Board
from weighin.report import svg

FARTHEST = 3  # so many moves are shown in color
Point = tuple[float, float, str]  # million MACs, F1, team


def front(board: Board) -> str:
    """Return the picture of all submissions: MACs against macro F1, and the front of the best."""
    points = [
        (costs.macs / 1e6, standing.f1, line.team)
        for line in board.lines
        if (standing := line.deciding) and (costs := line.outcome.costs)
    ]
    with svg.style("front"):
        figure, axes = svg.canvas(7.4, 4.2, 0.7, 0.6, right=0.9)
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
            for x, y, team in _apart(best):
                axes.annotate(
                    svg.shorten(team, 16), (x, y), xytext=(7, -3), textcoords="offset points"
                )
        return svg.saved(figure)


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
    with svg.style("shake-up"):
        figure, axes = svg.canvas(6.4, 0.7 + 0.22 * len(moves), 2.1, 0.1, right=2.1, top=0.4)
        axes.set(xlim=(0, 1), ylim=(len(moves) - 0.4, -0.6))
        axes.axis("off")
        axes.text(0, -0.7, "public", ha="right", va="bottom", weight="bold")
        axes.text(1, -0.7, "private", ha="left", va="bottom", weight="bold")
        for team, move in moves.items():
            strong, rose = abs(move) >= far, move < 0
            color = (svg.GREEN if rose else svg.ORANGE) if strong else svg.MUTED
            ends = [place[team] for place in places]
            width = 2.2 if strong else 0.9
            axes.plot((0, 1), ends, color=color, linewidth=width, marker="o", markersize=4)
            name, ink = svg.shorten(team, 20), color if strong else svg.INK
            left, right = f"{name}  {ranks[team][0]}", f"{ranks[team][1]}  {name}"
            axes.text(-0.04, ends[0], left, ha="right", va="center", color=ink)
            axes.text(1.04, ends[1], right, ha="left", va="center", color=ink)
        return svg.saved(figure)
