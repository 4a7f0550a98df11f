"""Reads a table of file names and classes (its dialects: text_table.py).

There may be an index column, one column a class (one-hot), and columns that are not asked for. What
was guessed is returned as notes; rows that cannot be used are counted by reason.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from weighin.errors import DataError
from weighin.file_names import IMAGE_SUFFIXES, SPLIT_WORDS, Matches, fold, printable
from weighin.text_table import (
    CLASSES,
    FILENAMES,
    GROUPS,
    PREDICTIONS,
    SPLITS,
    TRUTHS,
    Table,
    column_key,
    differ,
    is_number,
    read_table,
)

FLAGS = {  # columns of yes and no: the split of yes; no is train, but for is_train
    **dict.fromkeys(("is_valid", "is_val", "is_validation"), "validation"),
    **dict.fromkeys(("is_train", "is_training", "is_training_image"), "train"),
    "is_test": "test",
}
SPLIT_KINDS = {
    "train": r"tr(ain|n|$)",
    "validation": r"val|dev|eval",
    "test": r"te?st|holdout",
}
SPLIT_FILLERS = {"x", "public", "private", "seg", "set", "official", "is"}
IGNORED = ("ignored", "ignore", "unused", "exclude", "excluded")  # in the column of splits
BOXES = ("xmin", "x_min", "xmax", "x_max", "bbox", "bbox_x", "bbox_x1", "x1", "x2")
INDEX = ("", "index", "unnamed:_0", "row", "no", "no.", "#")
ONES = {"1", "1.0", "true"}
BITS = {"", "0", "0.0", "false", *ONES}
AGAIN = "listed twice"  # why a row is left out that says nothing new
NO_CLASS = {  # as pandas, spreadsheets and databases write a missing one
    *("", "nan", "NaN", "<NA>", "NaT", "#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!"),
    *("#NUM!", "#SPILL!", "#CALC!", "N/A", "n/a", "NULL"),
}
MAYBE_NONE = {"NA", "na", "None", "none", "NONE", "null"}  # as R, Python and JSON do; or a class
NO_GROUP = {word.lower() for word in (*NO_CLASS, *MAYBE_NONE)} | {"-", "?"}


@dataclass(frozen=True)
class Row:
    """One labelled file."""

    filename: str
    label: str
    group: str = ""
    split: str = ""  # train, validation or test; empty where the table does not say


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read, or their numbers from 1; None is guessed."""

    filename: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Labels:
    """The labelled files of a table, in its order, without repetitions."""

    path: Path
    rows: list[Row]
    left_out: Counter[str]  # reason: rows
    notes: tuple[str, ...]  # how the table was read, where that was guessed
    no_splits: Counter[str] = field(default_factory=Counter)  # words of the split column: rows
    such_as: dict[str, str] = field(default_factory=dict)  # reason: the first row left out by it

    @property
    def told(self) -> str:
        """Return how the table was read, to go on an error with; empty where that is plain."""
        return "".join(f"; {note}" for note in self.notes)

    def by_name(self, needed: bool = True) -> dict[str, str]:
        """Return {file name: class}.

        Raises:
            DataError: a file has two classes, or (if labels are `needed`) there are none.
        """
        found: dict[str, str] = {}
        for row in self.rows:
            if found.setdefault(row.filename, row.label) != row.label:
                raise DataError(
                    f'{self.path} lists {row.filename} twice, as "{found[row.filename]}" and as '
                    f'"{row.label}"',
                    f"remove the wrong row from {self.path}",
                )
        if needed and not found:
            fix = "name a CSV with the columns filename,class"
            raise DataError(f"{self.path} holds no labels", fix)
        return found


def read_labels(path: Path, columns: Columns | None = None) -> Labels:
    """Return the labelled files of a table.

    Without `columns` there is no option by which a user may name them.

    Raises:
        DataError: it is missing or no table, or its columns cannot be told apart.
    """
    return next(_readings(path, columns))


def read_matched(
    path: Path,
    meant: Callable[[list[str]], Matches],
    columns: Columns | None = None,
    predicted: bool = False,
) -> tuple[Labels, Matches]:
    """Return the labelled files of a table, and which files `meant` says that their names mean.

    With `predicted` it is a submission, which may have a column of the truth beside its own.

    A column that is called as one of file names is, such as id, may hold running numbers, and
    another the names: the first is read of whose values most mean a file.

    Raises:
        DataError: as `read_labels`, or as `meant`.
    """
    tried = (
        (labels, meant([row.filename for row in labels.rows]))
        for labels in _readings(path, columns, predicted)
    )
    first = next(tried)
    return next((one for one in chain((first,), tried) if one[1].are_sure), first)


def _readings(path: Path, columns: Columns | None, predicted: bool = False) -> Iterator[Labels]:
    """Yield the labels of a table, then what they are by other columns of file names."""
    wanted = columns or Columns()
    named = [name for name in astuple(wanted) if name and not name.isdigit()]
    table = read_table(path, True if named else None, named)
    try:
        roles = _roles(table, wanted, predicted)
    except _UnclearError as unclear:
        has = f"it has {', '.join(table.header)}"
        name = "name the columns that hold file names and classes (--filename-column, "
        options = "" if columns is None else f"{name}--class-column), or "
        fix = f"{options}call one filename and one class in {path}"
        raise DataError("; ".join((f"{path} {unclear}", has, *table.notes)), fix) from None

    yield _labels(table, roles)
    for names in _other_names(table, roles) if wanted.filename is None else ():
        yield _labels(table, roles._replace(names=names))


class _UnclearError(Exception):
    """The columns of a table cannot be told apart."""


def split_of(value: str, column: str = "") -> str:
    """Return train, validation or test for what tables call them in any case; else empty.

    In a `column` of `FLAGS` yes and no are told too; what is not to train on may be of two splits.
    """
    if (flag := FLAGS.get(column_key(column))) and value.lower() in BITS - {""}:
        return flag if _is_one(value) else "" if flag == "train" else "train"
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", value.strip()).lower()
    words = [word for word in re.split(r"[^a-z]+", apart) if word and word not in SPLIT_FILLERS]
    kinds = [kind for kind, pattern in SPLIT_KINDS.items() if re.match(pattern, "".join(words))]
    return kinds[0] if kinds else SPLIT_WORDS.get(fold(value.strip()), "")


class _Roles(NamedTuple):
    """Which columns, by place, say what."""

    names: int
    label: int | None
    hot: list[int]  # columns of 0 and 1, one a class
    group: int | None
    split: int | None
    sure: list[int]  # Open Images' Confidence: 0 is "it is not there"


def _roles(table: Table, columns: Columns, predicted: bool) -> _Roles:
    if "region_shape_attributes" in map(column_key, table.header):
        raise DataError(f"{table.path} is a table of VIA, of regions", "export it from VIA as COCO")
    marks = _marks(table, ())
    group = _named(table, columns.group, GROUPS, marks)
    split = _named(table, columns.split, SPLITS, marks)
    split = _named(table, None, tuple(FLAGS)) if split is None else split
    names = _filenames(table, columns.filename, {group, split} - {None})
    taken = {names, group, split}
    label = _named(table, None, PREDICTIONS, taken) if predicted else None
    if label is None:
        guesses = [word for word in CLASSES if not (predicted and word in TRUTHS)]
        label = _named(table, columns.label, guesses, taken, words=True)
    hot = [] if columns.label else _one_hot(table, taken, label)
    label = None if hot else label
    if label is None and not hot:
        label = _only_one_left(table, taken)
    sure = [at for at, title in enumerate(table.header) if column_key(title) == "confidence"]
    sure = [at for at in sure if {*table.values(at)} <= BITS and not predicted]
    return _Roles(names, label, hot, group, split, sure)


def _labels(table: Table, roles: _Roles) -> Labels:
    names, label, hot, group, split, sure = roles
    words = {_bare(row[label]) for row in table.rows} if label is not None else set()
    left_out: Counter[str] = Counter()
    no_splits: Counter[str] = Counter()
    such_as: dict[str, str] = {}
    rows = dict[tuple[str, str], Row]()
    for row, line in zip(table.rows, table.lines, strict=True):
        ones = [table.header[at] for at in hot if _is_one(row[at])]
        name = _without_dots(row[names])
        value = row[label] if label is not None else ones[0] if len(ones) == 1 else ""
        if "\0" in value:  # which is not seen, and which no folder has in its name
            problem = f'{table.path}, line {line}: a byte 0 in the class "{printable(value)}"'
            raise DataError(problem, f"remove it from {table.path}")
        own_split = split_of(row[split], table.header[split]) if split is not None else ""
        reason = _reason(name, value, len(ones), (name, value) in rows)
        if split is not None and row[split].lower() in IGNORED:  # as in the solutions of Kaggle
            reason = f'its {table.header[split]} is "{row[split]}"'
        elif not reason and label is not None and _of_several(value, words):
            reason = "several classes"
        elif any(not _is_one(row[at]) for at in sure):
            reason = "its confidence is 0"
        if reason == AGAIN:
            _check_again(table, rows[name, value], own_split)
        if reason:
            left_out[reason] += 1
            such_as.setdefault(reason, f"line {line} ({printable(name)})")
            continue
        own_group = row[group] if group is not None else ""
        if split is not None and row[split] and not own_split:
            no_splits[row[split]] += 1
        rows[name, value] = Row(name, value, own_group, own_split)
    _check_boxes(table, names)
    if no_splits and not any(row.split for row in rows.values()):
        roles = roles._replace(split=None)  # a column of other words
    doubtful = sorted(MAYBE_NONE & {row.label for row in rows.values()})
    notes = _notes(table, roles)
    notes += tuple(f'"{word}" is read as a class, not as a missing one' for word in doubtful)
    return Labels(table.path, list(rows.values()), left_out, notes, no_splits, such_as)


def _notes(table: Table, roles: _Roles) -> tuple[str, ...]:
    """Return what a reader should know of how a table was read."""
    names, label, hot, group, split, _ = roles
    said = {"file names": names, "classes": label, "groups": group, "splits": split}
    told = [f'{what} from "{table.header[at]}"' for what, at in said.items() if at is not None]
    told += [f"classes from {len(hot)} columns of 0 and 1"] if hot else []
    if label is not None and column_key(table.header[label]) in PREDICTIONS:
        told += [f'not from "{title}"' for title in table.header if column_key(title) in CLASSES]
    used = [column_key(table.header[at]) for at in (names, label) if at is not None]
    flagged = split is not None and column_key(table.header[split]) in FLAGS
    expected = used == ["filename", "class"] and not flagged
    return table.notes + (() if expected else (", ".join(told),))


def _bare(value: str) -> str:
    """Return a class without the signs of a list of one."""
    return value.strip("[]'\" ")


def _of_several(value: str, words: set[str]) -> bool:
    """Return whether a value names several classes, each of which others have by itself.

    A space alone parts none: a hot dog is neither hot nor a dog.
    """
    own = {_bare(part) for part in re.split(r"[|,;+&]", value.strip("[]"))}
    return len(own) > 1 and own <= words


def _reason(name: str, label: str, ones: int, listed: bool) -> str:
    """Return why a row is left out; empty if it is not."""
    if not name:
        return "no file name"
    if ones > 1:
        return "several classes"
    if label in NO_CLASS:
        return "no class"
    return AGAIN if listed else ""


def _without_dots(name: str) -> str:
    """Return a path without the folders `.`, by which one file would have two names."""
    return re.sub(r"(^|(?<=[/\\]))(\.[/\\])+", "", name)


def _check_again(table: Table, row: Row, split: str) -> None:
    """Refuse a file that is listed again in another split."""
    if row.split != split:
        splits = " and as ".join(f'"{name or "no split"}"' for name in (row.split, split))
        raise DataError(
            f"{table.path} lists {row.filename} twice, as {splits}",
            f"remove the wrong row from {table.path}",
        )


def _check_boxes(table: Table, names: int) -> None:
    """Refuse a table of boxes: of a file that is listed again, each row is a part."""
    boxes = [title for title in table.header if column_key(title) in BOXES]
    files = Counter(table.values(names))
    for name, many in files.most_common(1) if boxes else ():
        if many > 1:
            raise DataError(
                f"{table.path} has boxes ({', '.join(boxes)}), {many:,} of them in {name}; a table "
                "is of whole images",
                "write the boxes as a COCO file and import that",
            )


def _named(
    table: Table,
    name: str | None,
    guesses: Sequence[str],
    taken: Iterable[int | None] = (),
    words: bool = False,
) -> int | None:
    """Return the column called `name`, else the likeliest of the guesses that is not taken.

    With `words`, one of words goes before one of numbers, as class names before class ids.

    Raises:
        _UnclearError: there is no column `name`, or the guess has a namesake of other values.
    """
    plain = [column_key(title) for title in table.header]
    if name is not None:
        if name in table.header:
            return table.header.index(name)
        if column_key(name) in plain:
            return plain.index(column_key(name))
        if name.isdigit() and 0 < int(name) <= len(plain):
            return int(name) - 1
        raise _UnclearError(f'has no column "{name}"')
    found = [plain.index(guess) for guess in guesses if guess in plain]
    free = [at for at in found if at not in set(taken)]
    if words:
        free.sort(key=lambda at: all(map(is_number, table.values(at))))
    return _alone(table, free[0]) if free else None


def _alone(table: Table, column: int) -> int:
    """Return a column that was guessed, unless it has a namesake of other values."""
    name, values = column_key(table.header[column]), table.values(column)
    for at, title in enumerate(table.header):
        if column_key(title) == name and table.values(at) != values:
            raise _UnclearError(f'has two columns "{table.header[column]}"')
    return column


def _filenames(table: Table, name: str | None, taken: Iterable[int | None]) -> int:
    if name is not None and (found := _named(table, name, ())) is not None:
        return found
    columns = [at for at in range(len(table.header)) if at not in set(taken)]
    files = [at for at in columns if _names_images(table, at)]
    titles = {column_key(table.header[at]): at for at in reversed(files or columns)}
    guess = next((titles[wanted] for wanted in FILENAMES if wanted in titles), None)
    if guess is not None:
        return _alone(table, guess)
    if len(files) == 1 or (files and not table.rows):
        return files[0]
    columns = [at for at in columns if column_key(table.header[at]) not in (*INDEX, *CLASSES)]
    single = [at for at in columns if table.rows and differ(table.rows, at)]
    if len(single) == 1 or (single and "it has no header" in table.notes):
        return single[0]
    raise _UnclearError("has no column that is known to hold file names")


def _names_images(table: Table, column: int) -> bool:
    """Return whether most values of a column are called as image files are."""
    images = sum(value.lower().endswith(IMAGE_SUFFIXES) for value in table.values(column))
    return images * 2 > len(table.rows)


def _other_names(table: Table, roles: _Roles) -> list[int]:
    """Return the columns that may hold file names instead of the one that was guessed."""
    if _names_images(table, roles.names):
        return []
    taken = {roles.names, roles.label, roles.group, roles.split, *roles.hot}
    left = [at for at in range(len(table.header)) if at not in taken]
    return [at for at in left if differ(table.rows, at) and not _counts(table, at)]


def _counts(table: Table, column: int) -> bool:
    """Return whether a column holds the numbers of the rows."""
    rows = range(len(table.rows))
    return table.values(column) in [[str(n + start) for n in rows] for start in (0, 1)]


def _only_one_left(table: Table, taken: Iterable[int | None]) -> int:
    left = [at for at in range(len(table.header)) if at not in set(taken)]
    left = [at for at in left if column_key(table.header[at]) not in INDEX]
    if len(table.rows) > 2:  # an index without a name
        left = [at for at in left if not _counts(table, at)]
    if len(left) > 1:  # what is the same or empty throughout
        left = [at for at in left if len(set(table.values(at))) > 1]
    if len(left) != 1:
        raise _UnclearError("has no column that is known to hold classes")
    return left[0]


def _one_hot(table: Table, taken: Iterable[int | None], label: int | None) -> list[int]:
    """Return the columns of a class each: all of 0 and 1, and mostly one 1 in a row.

    A class may be called as an index is, if each row has a 1 then. So may it as `label`, the column
    that is called as one of classes is; else that holds the classes.
    """
    if marks := _marks(table, taken):
        left = {at for at, title in enumerate(table.header) if column_key(title) not in INDEX}
        same = len({tuple(row[at] for at in marks) for row in table.rows}) == 1 < len(table.rows)
        if same and left - {*taken, *marks}:  # they tell nothing apart, and another column may
            return []
        return marks if label is None or label in marks else []
    hot = [at for at in _bits(table, taken) if column_key(table.header[at]) not in INDEX]
    mostly = _single(table, hot) * 2 > len(table.rows)
    return hot if label is None and len(hot) > 1 and mostly else []


def _bits(table: Table, taken: Iterable[int | None]) -> list[int]:
    columns = [at for at in range(len(table.header)) if at not in set(taken)]
    return [at for at in columns if {v.lower() for v in table.values(at)} <= BITS]


def _marks(table: Table, taken: Iterable[int | None]) -> list[int]:
    """Return the columns of 0 and 1 if each row has one 1 in them."""
    hot = _bits(table, taken)
    return hot if len(hot) > 1 and 0 < len(table.rows) == _single(table, hot) else []


def _single(table: Table, hot: Sequence[int]) -> int:
    """Return how many rows have one 1 in the columns `hot`."""
    return sum(sum(_is_one(row[at]) for at in hot) == 1 for row in table.rows)


def _is_one(value: str) -> bool:
    return value.lower() in ONES
