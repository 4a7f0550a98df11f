"""Labels in a CSV, and labels against the truth."""

from csv import DictReader, Error
from pathlib import Path

from weighin.errors import DataError
from weighin.grading.f1 import Confusion, confusion
from weighin.grading.folder import printable

HEADER = ("filename", "class")


def read_labels(path: Path, needed: bool = True) -> dict[str, str]:
    """Return {filename: class} of a CSV with those two columns, others ignored.

    Raises:
        DataError: the file is missing, lacks a column or a value, or names a file twice.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            table = DictReader(file, strict=True)
            if not {*HEADER} <= {*(table.fieldnames or ())}:
                raise DataError(f"{path} has no columns `filename` and `class`", f"edit {path}")
            rows = [(row["filename"], row["class"]) for row in table]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "name a CSV of labels") from None
    except (UnicodeDecodeError, Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8: {error}", f"edit {path}") from None
    labels: dict[str, str] = {}
    for line, (name, label) in enumerate(rows, start=2):
        if not name or not label:
            raise DataError(f"{path}, row {line}: no filename or no class", f"edit {path}")
        if name in labels:
            raise DataError(f"{path}, row {line}: {name} occurs twice", f"edit {path}")
        labels[name] = label
    if needed and not labels:
        raise DataError(f"{path} holds no labels", "name a CSV of labels")
    return labels


def compared(labels: dict[str, str], truth: dict[str, str], where: str, fix: str) -> Confusion:
    """Return the confusion of {filename: class} with the truth, over the files of the truth.

    Raises:
        DataError: the truth names files that have no label; names `where` they lack and the `fix`.
    """
    absent = [name for name in truth if name not in labels]
    if absent:
        files = f"{len(absent)} files that {where} lacks, such as {printable(absent[0])}"
        raise DataError(f"the truth names {files}", fix)
    return confusion(list(truth.values()), [labels[name] for name in truth])
