"""Many submissions graded and ranked: leaderboard.json, leaderboard.csv and pages to look at.

The test images are parted by a hash of their names into a public part, whose board (public.html)
may be shown while a contest runs, and a private part, which decides. The page of a submission is
for its authors: it is of the public part alone, and names no image.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from weighin.contest.grading import Grader, Outcome, grade_submission
from weighin.contest.ranking import Entry, Standing, is_public, standings
from weighin.contest.submissions import Submission, found_in
from weighin.errors import DataError, OutputError, WeighinError
from weighin.files import sha256, write_csv, write_json
from weighin.grading.labels import Truth, class_form, read_truth
from weighin.grading.predict import list_files
from weighin.grading.score import WASTE
from weighin.label_csv import read_labels
from weighin.params import Contest
from weighin.progress import Progress

COLUMNS = (
    *("rank", "rank_best", "rank_worst", "team", "state", "score", "score_low", "score_high"),
    *(
        "f1",
        "accuracy",
        "macs",
        "parameters",
        "bytes",
        "public_rank",
        "public_score",
        "said",
        "rebuilt",
    ),
)
InClasses = Callable[[tuple[str, ...]], dict[str, str]]  # {file: class} as a model spells it
FIX = "name the folder of the test images that the truth is about"


@dataclass(frozen=True)
class Options:
    """How a board is made."""

    grader: Grader
    truth: Path
    contest: Contest = WASTE
    jobs: int = 1
    public_share: float = 0.5  # of the test images; 0: one board, all of it private
    seed: int = 0  # of the parts and of the resamples
    name: str = "Leaderboard"
    resamples: int = 2000


@dataclass(frozen=True)
class Line:
    """A submission on the board; None where there is nothing to rank."""

    outcome: Outcome
    private: Standing | None = None
    public: Standing | None = None
    same_as: tuple[str, ...] = ()  # teams with the same ONNX file or the same answers
    rebuilt: str = "not tried"

    @property
    def team(self) -> str:
        """Return the team's name."""
        return self.outcome.team

    @property
    def deciding(self) -> Standing | None:
        """Return the standing that ranks it: the private one, where there is a private part."""
        return self.private or self.public


@dataclass(frozen=True)
class Board:
    """All lines, the best first, those without figures last; how many images each part has."""

    lines: tuple[Line, ...]
    contest: Contest
    private_images: int
    public_images: int
    name: str = "Leaderboard"
    notes: tuple[str, ...] = ()  # how the truth was read, where it was not plain

    @property
    def public(self) -> "Board":
        """Return what may be shown while a contest runs: nothing of the private part."""
        lines = sorted((replace(line, private=None) for line in self.lines), key=_order)
        return replace(self, lines=tuple(lines), private_images=0)


def leaderboard(folder: Path, out: Path, options: Options) -> Board:
    """Grade every submission of `folder`, rank them, and write the board into `out`.

    What was graded before with the same model, images, limits and code is not graded again.

    Raises:
        DataError: there is no submission, or the truth is not about the test images, or lies
            where what is graded could read it.
        OutputError: `out` cannot be written, or is where submissions or images are looked for.
    """
    _check_apart(folder, out, options)
    submissions, read = found_in(folder), _truth(options)
    truth = read.labels
    outcomes = _graded(submissions, out / "graded", options)

    @cache  # most models have the same classes
    def in_classes(classes: tuple[str, ...]) -> dict[str, str]:
        return read_truth(options.truth, list(truth), classes, "the test folder", FIX).labels

    told = [_in_words_of(truth, each, in_classes, options.truth) for each in outcomes]
    notes = read.notes + _unknown(truth, [each for each in told if each.is_graded], in_classes)
    board = replace(ranked(told, truth, options), notes=notes)
    write_board(board, out)
    return board


def _truth(options: Options) -> Truth:
    """Return the truth of the test images, in its own words.

    Raises:
        DataError: it is of other images, or writes a class in two ways.
    """
    forms: dict[str, str] = {}
    for name in sorted(set(read_labels(options.truth).by_name().values())):
        other = forms.setdefault(class_form(name), name)
        if other != name:
            problem = f"{options.truth} writes a class in two ways: {other} and {name}"
            raise DataError(problem, f"write it in one way in {options.truth}")
    test = options.grader.test
    return read_truth(options.truth, list_files(test), forms.values(), str(test), FIX)


def _unknown(
    truth: Mapping[str, str], outcomes: Sequence[Outcome], in_classes: InClasses
) -> tuple[str, ...]:
    """Return a note on classes of the truth that no submission knows: a misspelling, perhaps."""
    known: set[str] = set()
    for classes in {outcome.classes for outcome in outcomes}:
        theirs = in_classes(classes)
        known |= {truth[name] for name in truth if theirs[name] in classes}
    lost = sorted(set(truth.values()) - known) if outcomes else []
    return (f"truth: no submission knows the class {', '.join(lost)}",) if lost else ()


def _check_apart(folder: Path, out: Path, options: Options) -> None:
    test = options.grader.test
    for place, what in ((folder, "submissions"), (test, "test images")):
        if _is_below(out, place):
            problem = f"{out} lies in the folder of the {what}, {place}"
            raise OutputError(problem, "name a folder outside it, such as board")
    if _is_below(options.truth, test):
        problem = f"{options.truth} lies among the test images, where a submission could read it"
        raise DataError(problem, f"move it out of {test}")


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def ranked(outcomes: Sequence[Outcome], truth: Mapping[str, str], options: Options) -> Board:
    """Return the board of submissions on images with these classes {file name: class}."""
    graded = [outcome for outcome in outcomes if outcome.is_graded]
    parts: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(truth):
        parts[is_public(name, options.public_share, options.seed)].append(name)
    placed = {public: _standings(graded, names, truth, options) for public, names in parts.items()}
    same = _same(graded)
    lines = [
        Line(
            outcome,
            placed[False].get(outcome.team),
            placed[True].get(outcome.team),
            same[outcome.team],
        )
        if outcome.is_graded
        else Line(outcome)
        for outcome in outcomes
    ]
    sizes = (len(parts[False]), len(parts[True]))
    return Board(tuple(sorted(lines, key=_order)), options.contest, *sizes, options.name)


def write_board(board: Board, out: Path) -> None:
    """Write the board as JSON, CSV and pages: the whole one, the public one, one a submission."""
    from weighin.contest.pages import write_pages

    write_json(out / "leaderboard.json", facts(board))
    write_csv(out / "leaderboard.csv", COLUMNS, (_row(line) for line in board.lines))
    write_pages(board, out)


def facts(board: Board) -> dict[str, Any]:
    """Return what leaderboard.json holds."""
    return {
        "contest": asdict(board.contest),
        "notes": list(board.notes),
        "images": {"private": board.private_images, "public": board.public_images},
        "submissions": [
            {
                "team": line.team,
                "state": line.outcome.state,
                "said": line.outcome.said,
                "fix": line.outcome.fix,
                "sha256": line.outcome.sha256,
                "bytes": line.outcome.bytes,
                "model": line.outcome.costs and asdict(line.outcome.costs),
                "private": line.private and asdict(line.private),
                "public": line.public and asdict(line.public),
                "same_as": list(line.same_as),
                "rebuilt": line.rebuilt,
            }
            for line in board.lines
        ],
    }


def with_rebuilt(board: Board, team: str, verdict: str) -> Board:
    """Return a board that says what came of rebuilding a team's submission."""
    lines = (replace(line, rebuilt=verdict) if line.team == team else line for line in board.lines)
    return replace(board, lines=tuple(lines))


def _graded(submissions: Sequence[Submission], folder: Path, options: Options) -> list[Outcome]:
    grader, progress = options.grader, Progress("graded", len(submissions))
    grader.key  # noqa: B018 - where there is no image, that is said before anything is written
    grader.stopped.clear()  # an interrupted board is asked for again
    outcomes = []
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for outcome in pool.map(lambda one: grade_submission(one, grader, folder), submissions):
                outcomes.append(outcome)
                progress.step(f"{outcome.team}: {outcome.state}")
        except BaseException:
            grader.stopped.set()  # else what is running would be waited for
            raise
    return outcomes


def _in_words_of(
    truth: Mapping[str, str],
    outcome: Outcome,
    in_classes: InClasses,
    path: Path,
) -> Outcome:
    """Return an outcome with its labels as the truth spells them, or why that cannot be.

    `in_classes` gives the truth as a model with these classes spells it.
    """
    if not outcome.is_graded:
        return outcome
    missing = truth.keys() - outcome.labels.keys()
    if missing:
        said = f"it has no label for {len(missing):,} images"
        return replace(outcome, state="crashed", said=said, costs=None)
    try:
        theirs = in_classes(outcome.classes)
    except WeighinError as error:
        said = error.problem.replace(str(path), "the truth")
        return replace(outcome, state="refused", said=said, costs=None)
    words = {theirs[name]: truth[name] for name in truth}
    labels = {name: words.get(label, label) for name, label in outcome.labels.items()}
    return replace(outcome, labels=labels)


def _standings(
    outcomes: Sequence[Outcome], names: Sequence[str], truth: Mapping[str, str], options: Options
) -> dict[str, Standing]:
    if not outcomes or not names:
        return {}
    entries = [_entry(outcome, names) for outcome in outcomes]
    found = standings(
        [truth[name] for name in names], entries, options.contest, options.resamples, options.seed
    )
    return {outcome.team: each for outcome, each in zip(outcomes, found, strict=True)}


def _entry(outcome: Outcome, names: Sequence[str]) -> Entry:
    assert outcome.costs is not None
    labels = [outcome.labels[name] for name in names]
    return Entry(labels, outcome.costs.of_file(outcome.bytes))


def _same(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, ...]]:
    """Return {team: the other teams with the same file or the same answers}."""
    answers = {
        outcome.team: sha256(repr(sorted(outcome.labels.items())).encode()) for outcome in outcomes
    }
    return {
        one.team: tuple(
            other.team
            for other in outcomes
            if other.team != one.team
            and (other.sha256 == one.sha256 or answers[other.team] == answers[one.team])
        )
        for one in outcomes
    }


def _order(line: Line) -> tuple[bool, float, str]:
    return (line.deciding is None, line.deciding.score if line.deciding else 0.0, line.team)


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
    row |= {"said": _text(line.outcome.said), "rebuilt": _text(line.rebuilt)}
    return [row.get(name, "") for name in COLUMNS]


def _text(value: str) -> str:
    """Return a text of a team's choice as one that no spreadsheet takes for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value


def lines_of(board: Board) -> list[str]:
    """Return the board as lines for a terminal."""
    shown = list(board.notes)
    for line in board.lines:
        one = line.deciding
        costs = line.outcome.costs
        if one is None or costs is None:
            shown.append(f"   -  {line.team}: {line.outcome.state}: {line.outcome.said}")
            continue
        ranks = f"{one.best_rank} to {one.worst_rank}"
        same = f"; the same as {', '.join(line.same_as)}" if line.same_as else ""
        shown.append(
            f"{one.rank:>4}  {line.team}: score {one.score:.4f} ({one.low:.4f} to {one.high:.4f}), "
            f"F1 {one.f1:.4f}, {costs.macs:,} MACs; rank {ranks} at 95 %{same}"
        )
    return shown
