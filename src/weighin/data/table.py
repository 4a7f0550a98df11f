"""A CSV of file names and classes: its columns, named or guessed, and the files it speaks of."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from weighin.errors import DataError
from weighin.images import SUFFIXES

# guesses, the likeliest first; a header is compared in lower case
FILENAMES = ("filename", "file_name", "file", "image", "image_path", "path", "image_id", "name")
CLASSES = ("class", "label", "category", "class_name", "target", "class9")
GROUPS = ("group", "group_id", "scene", "session")
WIDE_GROUP = 50  # images; a group that is larger, and over half of a class, tells nothing apart


@dataclass(frozen=True)
class Row:
    """One labelled file."""

    filename: str
    label: str
    group: str = ""


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return a table's header and rows; the delimiter is the header's likeliest of ``, ; tab``.

    Raises:
        DataError: missing, empty, or not CSV in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "name an existing CSV file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    if not first.strip():
        raise DataError(f"{path} has no header", "give it one such as filename,class")
    delimiter = max((",", ";", "\t"), key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="")
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        return header, [{key: (row[key] or "").strip() for key in header} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}", "save it as CSV in UTF-8") from None


def column(header: list[str], named: str | None, guesses: tuple[str, ...], path: Path) -> str:
    """Return the column called `named`, or the first guess that the header holds.

    Raises:
        DataError: there is none.
    """
    if named is not None and named in header:
        return named
    lower = {name.lower(): name for name in reversed(header)}
    found = next((lower[guess] for guess in guesses if guess in lower), None)
    if named is None and found is not None:
        return found
    wanted = f'no column "{named}"' if named else f"none of the columns {', '.join(guesses)}"
    raise DataError(
        f"{path} has {wanted}; it has {', '.join(header)}",
        "name the columns that hold file names and classes",
    )


def read_rows(
    path: Path,
    filename: str | None = None,
    label: str | None = None,
    group: str | None = None,
) -> list[Row]:
    """Return the labelled files of a CSV, in its order; the column names may be given.

    A row without a file name or a class is left out; a group column is optional.
    """
    header, rows = read_csv(path)
    names = column(header, filename, FILENAMES, path)
    labels = column(header, label, CLASSES, path)
    by_guess = {name.lower() for name in header} & set(GROUPS)
    groups = column(header, group, GROUPS, path) if group or by_guess else None
    return [
        Row(row[names], row[labels], row[groups] if groups else "")
        for row in rows
        if row[names] and row[labels]
    ]


def find_file(folder: Path, filename: str) -> Path | None:
    """Return the file of a folder, which may be named without its suffix.

    None: it is missing, may not be read, or its name leads out of the folder.
    """
    for name in (filename, *(filename + suffix for suffix in SUFFIXES)):
        path = folder / name
        if os.path.isfile(path) and os.access(path, os.R_OK):  # noqa: PTH113 - false for any name
            return path if path.resolve().is_relative_to(folder.resolve()) else None
    return None


def find_folder(path: Path, rows: Iterable[Row]) -> Path:
    """Return the folder that holds most of the files: the CSV's own, or one beside the CSV."""
    some = [row.filename for row in rows][:50]
    beside = sorted(p for p in path.parent.iterdir() if p.is_dir() and p.name[0] != ".")
    return max([path.parent, *beside], key=lambda f: sum(find_file(f, n) is not None for n in some))


def wide_groups(rows: Iterable[Row]) -> list[str]:
    """Return the groups that tell nothing apart, sorted.

    A value such as ``split=train`` on every image would tie a whole class to one split.
    """
    rows = list(rows)
    labels = Counter(row.label for row in rows)
    groups = Counter(row.group for row in rows)
    both = Counter((row.group, row.label) for row in rows)
    wide = {
        group
        for (group, label), count in both.items()
        if group and groups[group] > WIDE_GROUP and count * 2 > labels[label]
    }
    return sorted(wide)
