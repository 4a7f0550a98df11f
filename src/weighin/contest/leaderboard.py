"""Many submissions graded and ranked: leaderboard.json, leaderboard.csv and pages to look at.

The test images are parted by a hash of their names into a public part, whose board (public.html)
may be shown while a contest runs, and a private part, which decides. The page of a submission is
for its authors: it is of the public part alone, and names no image.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from weighin.contest.grading import Grader, Outcome, grade_submission
from weighin.contest.pages import write_board
from weighin.contest.ranking import (
    Board,
    Entry,
    Line,
    Standing,
    broken_limits,
    is_public,
    order,
    standings,
)
from weighin.contest.submissions import Submission, found_in
from weighin.errors import DataError, OutputError, WeighinError
from weighin.file_names import class_form
from weighin.grading.grade import Truth, nearest_class, read_truth
from weighin.grading.predict import list_files
from weighin.grading.score import OUT_OF_CONTEST, WASTE
from weighin.label_csv import read_labels
from weighin.params import Contest
from weighin.progress import Progress

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
        if out.resolve().is_relative_to(place.resolve()):
            problem = f"{out} lies in the folder of the {what}, {place}"
            raise OutputError(problem, "name a folder outside it, such as board")
    if options.truth.resolve().is_relative_to(test.resolve()):
        problem = f"{options.truth} lies among the test images, where a submission could read it"
        raise DataError(problem, f"move it out of {test}")


def ranked(outcomes: Sequence[Outcome], truth: Mapping[str, str], options: Options) -> Board:
    """Return the board of submissions on images with these classes {file name: class}."""
    outcomes = [_with_limits_told(outcome, options.contest) for outcome in outcomes]
    graded = [outcome for outcome in outcomes if outcome.is_graded]
    parts: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(truth):
        parts[is_public(name, options.public_share, options.seed)].append(name)
    placed = {public: _standings(graded, names, truth, options) for public, names in parts.items()}
    same = _same(graded)
    lines = []
    for outcome in outcomes:
        private, public = (placed[part].get(outcome.team) for part in (False, True))
        lines.append(Line(outcome, private, public, same.get(outcome.team, ())))
    sizes = (len(parts[False]), len(parts[True]))
    return Board(tuple(sorted(lines, key=order)), options.contest, *sizes, options.name)


def _with_limits_told(outcome: Outcome, contest: Contest) -> Outcome:
    """Return an outcome with a note on the hard limits that it breaks, if it breaks one."""
    if outcome.costs is None:
        return outcome
    broken = broken_limits(contest, outcome.costs.of_file(outcome.bytes))
    out = f"out of the contest, which adds {OUT_OF_CONTEST:,.0f} to a score: {'; '.join(broken)}"
    return replace(outcome, notes=(*outcome.notes, out)) if broken else outcome


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
    lost = sorted({truth[name] for name in truth if theirs[name] not in outcome.classes})
    notes = (_unknown_to(outcome.classes, lost),) if lost else ()
    return replace(outcome, labels=labels, notes=(*outcome.notes, *notes))


def _unknown_to(classes: Sequence[str], lost: Sequence[str]) -> str:
    """Return a note on classes of the truth that a model lacks; how many images is no team's."""
    nearest = ((name, nearest_class(name, classes)) for name in lost)
    told = (f"{name} (did you mean it by {near}?)" if near else name for name, near in nearest)
    return f"the model does not know the class {', '.join(told)}: its images count as errors"


def _standings(
    outcomes: Sequence[Outcome], names: Sequence[str], truth: Mapping[str, str], options: Options
) -> dict[str, Standing]:
    if not outcomes or not names:
        return {}
    entries = [
        Entry([outcome.labels[name] for name in names], outcome.costs.of_file(outcome.bytes))
        for outcome in outcomes
        if outcome.costs
    ]
    found = standings(
        [truth[name] for name in names], entries, options.contest, options.resamples, options.seed
    )
    return {outcome.team: each for outcome, each in zip(outcomes, found, strict=True)}


def _same(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, ...]]:
    """Return {team: the other teams with the same file or the same answers}."""
    return {
        one.team: tuple(
            other.team
            for other in outcomes
            if other.team != one.team and (other.sha256 == one.sha256 or other.labels == one.labels)
        )
        for one in outcomes
    }
