"""Grades a model on a folder: writes submission.csv and grade.json, or nothing.

submission.csv depends on the model and the folder alone, byte for byte. grade.json also holds a
measured speed, so two runs differ there and nowhere else.

The truth may write its files and classes in other ways than the folder and the model. F1 is
computed where the truth and the labels speak of the same files and classes, or not at all.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any

from weighin.errors import DataError, OutputError, ParamsError
from weighin.file_names import class_form, match, printable
from weighin.files import canonical_json, csv_text, read_yaml, replacing, sha256, sweep
from weighin.grading.contract import Contract
from weighin.grading.limits import UNLIMITED, Limits
from weighin.grading.model import Model, open_model
from weighin.grading.predict import CLOSE, Predictions, list_files, predict
from weighin.grading.recount import CEILING, Count, counted, file_cost
from weighin.grading.risk import risk
from weighin.grading.score import (
    WASTE,
    ConfusionMatrix,
    Cost,
    Metrics,
    confusion,
    is_own,
    over_limits,
    score,
)
from weighin.label_csv import AGAIN, Labels, read_matched
from weighin.parallel import cores
from weighin.params import Contest, renamed_in
from weighin.validation import read

HEADER = ("filename", "class")
SUBMISSION, GRADE, PROBE = "submission.csv", "grade.json", ".grading"
RESAMPLES = 10_000
FASTEST = 1e11  # operations a second of one core: no processor of today does as many
FASTEST_WRITES = 1e10  # numbers a second of one core, as much beyond any memory
CHECKS = 4  # batches that are run before the first: runtime.py
SEED = 0  # of the bootstrap: the same for everyone who grades
SHOWN = 20  # class names in a message


@dataclass(frozen=True)
class Grade:
    """A graded folder: what was predicted, and the facts that grade.json holds."""

    predictions: Predictions
    facts: dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """The true classes of some files, as the model and the folder name both."""

    labels: dict[str, str]  # file name: class
    notes: tuple[str, ...]  # how the table was read, where it was not plain


def grade(
    model_path: Path,
    folder: Path,
    out: Path,
    *,
    truth: Path | None = None,
    contest: Contest = WASTE,
    strict: bool = False,
    limits: Limits = UNLIMITED,
    contract: Contract | None = None,
) -> Grade:
    """Label `folder` with a model, count its work, score it if `truth` is given, write to `out`.

    Raises:
        ModelError, HiddenWorkError, DataError, OutputError, TimeLimitError, MemoryLimitError:
            nothing has been written.
    """
    out = Path(out)
    check_writable(out)
    model = open_model(Path(model_path), contract)
    count = counted(model, Path(model_path))
    check_limits(model, count, len(list_files(Path(folder))), limits)
    answers = None
    if truth:
        names = [printable(name) for name in list_files(folder)]
        fix = "name the folder that the truth is about; filenames are paths relative to it"
        answers = read_truth(truth, names, model.classes, "the folder", fix)
    start = time.perf_counter()
    found = predict(model, Path(folder), strict=strict)
    seconds = time.perf_counter() - start
    submission = submission_text(found)
    cost = file_cost(model.graph, count, model.bytes)
    facts = _facts(model, count, cost, found) | {
        "over_limits": [*over_limits(contest, cost).values()],
        "submission": sha256(submission.encode()),
        "speed": {"images_per_second": round(len(found.names) / seconds, 1)},
    }
    if answers is not None:
        facts["quality"] = quality(found, answers, cost, contest)
    _write(out, submission, canonical_json(facts))
    return Grade(found, facts)


def check_limits(model: Model, count: Count, images: int, limits: Limits) -> None:
    """Refuse before it runs what no machine does within `limits`.

    Raises:
        TimeLimitError, MemoryLimitError: with what it takes at the least.
    """
    batch = model.graph.batch
    rows = (-(-images // batch) + CHECKS) * batch
    operations = (count.macs + count.unpriced) * rows
    written = sum(node.elements for node in model.graph.nodes) * rows
    least = (operations / FASTEST + written / FASTEST_WRITES) / cores()
    if least > limits.seconds:
        work = f"{operations:,} operations, and {written:,} numbers to write,"
        raise limits.out_of_time(f"{work} take at least {least:,.0f} s, more")
    values = max(prod(node.data) + sum(map(prod, node.outputs)) for node in model.graph.nodes)
    size = 4 * (values + count.parameters)
    if size > limits.memory:
        raise limits.out_of_memory(f"one operator takes at least {size / 2**20:,.0f} MB, more")


def _write(out: Path, submission: str, facts: str) -> None:
    """Write both files; a grade.json that is there always describes the submission beside it."""
    with replacing(out / GRADE) as facts_draft, replacing(out / SUBMISSION) as draft:
        facts_draft.write_text(facts, encoding="utf-8")
        draft.write_text(submission, encoding="utf-8", newline="")
        (out / GRADE).unlink(missing_ok=True)  # of an earlier run: gone first, and back last


def submission_text(found: Predictions) -> str:
    """Return submission.csv: `filename,class`, in file-name order."""
    return csv_text(HEADER, zip(found.names, found.labels, strict=True))


def check_writable(out: Path) -> None:
    """Check before the work that its outputs can be written; sweep up after a killed run.

    Raises:
        OutputError: names the folder and what to do, in a container too.
    """
    try:
        with replacing(out / PROBE):
            pass
        (out / PROBE).unlink()
        for name in (PROBE, SUBMISSION, GRADE):
            sweep(out / name)
    except (OutputError, OSError) as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or cause
        raise OutputError(
            f"cannot write to {out}: {reason}",
            "make the folder yourself (`mkdir -p OUT`) and run as its owner; in a container: "
            '`--user "$(id -u):$(id -g)" -v "$PWD/OUT":/output`',
        ) from None


def read_contest(path: Path, own_score: bool = False) -> Contest:
    """Return the `contest` section of a parameter file.

    Its score may be a Python file beside it only where `own_score` allows that to be run.

    Raises:
        ParamsError: the file is missing, a value in it is wrong, or its score would run code.
    """
    values = read_yaml(path)
    if not isinstance(values, dict) or "contest" not in values:
        raise ParamsError(f"{path} has no section `contest`", "name a params.yaml")
    contest = read(Contest, values["contest"], f"{path} (contest)", renamed_in("contest"))
    if not is_own(contest.score):
        return contest
    if not own_score:
        problem = f"{path}: contest.score is {contest.score}, a Python file that scoring would run"
        raise ParamsError(problem, "pass --own-score if you trust that file")
    return dataclasses.replace(contest, score=str(path.parent / contest.score))


def quality(found: Predictions, truth: Truth, cost: Cost, contest: Contest) -> dict[str, Any]:
    """Return F1, its interval, the risk of the floor, the tables and the score."""
    table = compared(dict(zip(found.names, found.labels, strict=True)), truth)
    rows = [dataclasses.asdict(row) for row in table.rows()]
    result = score(contest, Metrics.of(table.f1, table.accuracy, cost))
    return {
        "f1": table.f1,
        "accuracy": table.accuracy,
        "images": len(truth.labels),
        "without_truth": len(found.names) - len(truth.labels),
        "notes": list(truth.notes),
        "bootstrap": dataclasses.asdict(risk(table, contest.floor_f1, RESAMPLES, SEED)),
        "per_class": {row.pop("name"): row for row in rows},
        "confusion": {"classes": list(table.classes), "counts": table.counts.tolist()},
        "contest": dataclasses.asdict(dataclasses.replace(contest, score=Path(contest.score).name)),
        "score": dataclasses.asdict(result),
    }


def _facts(model: Model, count: Count, cost: Cost, found: Predictions) -> dict[str, Any]:
    closest = found.closest()
    return {
        "model": {
            "sha256": model.sha256,
            "input": list(model.size),
            "classes": list(model.classes),
            "fallback": model.fallback,
            "preprocessing": model.contract.preprocessing(),
            **dataclasses.asdict(cost),
            "unpriced": {"operations": count.unpriced, "at_most": CEILING * count.macs},
        },
        "images": len(found.names),
        "unreadable": dict(sorted(found.unreadable.items())),
        "margin": {
            "smallest": closest and closest[1],
            "file": closest and closest[0],
            "close": found.close,
            "close_means_under": CLOSE,
        },
    }


def read_submission(
    path: Path, classes: Collection[str], names: Collection[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return {file name: class} of a table of labels, in the model's words, and notes on others.

    `names` are the files as the truth writes them: of these none may have two classes.

    Raises:
        DataError: it cannot be read, a row has no class or a file two, or none of its classes is
            one of the model's.
    """
    table, matches = read_matched(path, lambda own: match(own, names), predicted=True)
    for reason, row in table.such_as.items():
        if reason != AGAIN:
            raise DataError(f"{path}, {row}: {reason}", f"give each file one class in {path}")
    labels = table.by_name()
    matches.of_files(labels, path)
    words, notes = _same_classes(table, classes)
    notes += tuple(f"submission: {note}" for note in _told(table))
    own = {name: words[label] for name, label in labels.items() if name not in matches.again}
    return own, notes


def read_truth(
    path: Path, names: Collection[str], classes: Collection[str], where: str, fix: str
) -> Truth:
    """Return the truth of the files `names`, which `where` holds, in the classes of a model.

    Raises:
        DataError: it cannot be read, names a file that is not there (then `fix` says what to do)
            or one twice with two classes, or none of its classes is one of the model's.
    """
    table, matches = read_matched(path, lambda own: match(own, names))
    labels = table.by_name()
    matches.refuse_ambiguous(path)
    if matches.missing:
        files = f"{len(matches.missing):,} files that {where} lacks, such as {matches.missing[0]}"
        like = "" if matches.found else f"; {where} holds such as {next(iter(names), 'nothing')}"
        raise DataError(f"the truth names {files}{like}{table.told}", fix)
    words, notes = _same_classes(table, classes)
    if matches.tolerances:
        notes += (f"truth: {matches.words()}",)
    if len(matches.found) < len(names):
        without = f"{len(names) - len(matches.found):,} of the {len(names):,} files of {where}"
        notes += (f"truth: it leaves out {without}, which are not scored",)
    notes += tuple(f"truth: {note}" for note in _told(table))
    found = matches.of_files(labels, path)
    return Truth({file: words[label] for file, label in found.items()}, notes)


def _told(table: Labels) -> list[str]:
    """Return how a table was read, and what of it was not."""
    return [
        *table.notes,
        *(f"{many:,} rows left out: {why}" for why, many in table.left_out.items()),
    ]


def compared(labels: Mapping[str, str], truth: Truth) -> ConfusionMatrix:
    """Return the confusion of {file name: class} with the truth, over the files of the truth."""
    return confusion(list(truth.labels.values()), [labels[name] for name in truth.labels])


def _same_classes(
    table: Labels, classes: Collection[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return {class of a table: class of the model}, and notes on those that are not the same.

    A class that is the model's but for what `class_form` leaves out is taken for it; one that the
    model does not know stays as it is.
    """
    images = Counter(row.label for row in table.rows)
    by_form: dict[str, list[str]] = {}
    for name in classes:
        by_form.setdefault(class_form(name), []).append(name)
    words: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    for name in images:
        alike = [name] if name in classes else by_form.get(class_form(name), [])
        words[name] = alike[0] if len(alike) == 1 else name
    if not set(words.values()) & set(classes):
        raise DataError(
            f"none of the classes of {table.path} is one of the model's: it has "
            f"{_listed(images)}; the model has {_listed(classes)}",
            f"write the classes into {table.path} as the model names them",
        )
    other = [f'"{name}" as "{word}"' for name, word in words.items() if name != word]
    if other:
        notes += (f"{table.path} writes classes in another way: read {_listed(other)}",)
    unknown = {name: many for name, many in images.items() if words[name] not in classes}
    if unknown:
        notes += (
            f"{sum(unknown.values()):,} images of {table.path} have a class that the model does "
            f"not know ({_listed([_with_nearest(name, classes) for name in unknown])}): they "
            "count as errors",
        )
    return words, notes


def nearest_class(name: str, classes: Collection[str]) -> str:
    """Return the class that a name may be meant for, whatever its case; empty if there is none."""
    forms = {class_form(known): known for known in classes}
    near = get_close_matches(class_form(name), forms, n=1, cutoff=0.7)
    return forms[near[0]] if near else ""


def _with_nearest(name: str, classes: Collection[str]) -> str:
    near = nearest_class(name, classes)
    return f"{name}; did you mean {near}?" if near else name


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
