"""Labels against the truth: whatever way the truth writes its files and classes.

F1 is computed where the truth and the labels speak of the same files and classes, or not at all.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from weighin.errors import DataError
from weighin.file_names import class_form, match
from weighin.grading.score import ConfusionMatrix, confusion
from weighin.label_csv import Labels, read_labels

HEADER = ("filename", "class")
SHOWN = 20  # class names in a message


@dataclass(frozen=True)
class Truth:
    """The true classes of some files, as the model and the folder name both."""

    labels: dict[str, str]  # file name: class
    notes: tuple[str, ...]  # how the table was read, where it was not plain


def read_submission(path: Path, classes: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return {file name: class} of a table of labels, in the model's words, and notes on others.

    Raises:
        DataError: it cannot be read, or none of its classes is one of the model's.
    """
    table = read_labels(path)
    labels = table.by_name()
    words, notes = _same_classes(table, classes)
    return {name: words[label] for name, label in labels.items()}, notes


def read_truth(
    path: Path, names: Collection[str], classes: Collection[str], where: str, fix: str
) -> Truth:
    """Return the truth of the files `names`, which `where` holds, in the classes of a model.

    Raises:
        DataError: it cannot be read, names a file that is not there (then `fix` says what to do)
            or one twice with two classes, or none of its classes is one of the model's.
    """
    table = read_labels(path)
    labels = table.by_name()
    matches = match(labels, names)
    matches.refuse_ambiguous(path)
    if matches.missing:
        files = f"{len(matches.missing):,} files that {where} lacks, such as {matches.missing[0]}"
        like = "" if matches.found else f"; {where} holds such as {next(iter(names), 'nothing')}"
        raise DataError(f"the truth names {files}{like}", fix)
    words, notes = _same_classes(table, classes)
    if matches.tolerances:
        notes += (f"truth: {matches.words()}",)
    if len(matches.found) < len(names):
        without = f"{len(names) - len(matches.found):,} of the {len(names):,} files of {where}"
        notes += (f"truth: it leaves out {without}, which are not scored",)
    notes += tuple(f"truth: {note}" for note in table.notes)
    notes += tuple(f"truth: {many:,} rows left out: {why}" for why, many in table.left_out.items())
    found = matches.of_files(labels, path)
    return Truth({file: words[label] for file, label in found.items()}, notes)


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


def _with_nearest(name: str, classes: Collection[str]) -> str:
    near = get_close_matches(name, classes, n=1, cutoff=0.7)
    return f"{name}; did you mean {near[0]}?" if near else name


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
