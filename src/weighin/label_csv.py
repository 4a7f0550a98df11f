"""Reads a table of file names and classes, in any dialect that spreadsheets and contests write.

Encodings are UTF-8, UTF-16, UTF-32, CP949 (Hangul) and Windows-1252; values are parted by commas,
semicolons, tabs, bars or blanks; there may be a line ``sep=;``, empty lines, a header or none, an
index column, one column a class (one-hot), and columns that are not asked for. What was guessed is
returned as notes; rows that cannot be used are counted by reason.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from itertools import islice
from pathlib import Path

from weighin.errors import DataError
from weighin.file_names import IMAGE_SUFFIXES

# column names, the likeliest first; a header is compared in lower case, blanks as "_"
FILENAMES = (
    *("filename", "file_name", "file", "image", "image_path", "path", "image_id", "name"),
    *("image_name", "img", "img_name", "img_path", "filepath", "file_path", "image_file"),
    *("imagename", "photo", "picture", "filenames", "images", "url", "id", "key"),
)
CLASSES = (
    *("class", "label", "category", "class_name", "target", "class9", "label_name"),
    *("category_name", "classname", "labels", "classes", "species", "breed", "diagnosis"),
    *("variety", "tag", "y", "class_id", "category_id", "label_id", "ground_truth", "truth"),
)
GROUPS = (
    *("group", "group_id", "scene", "session", "patient", "patient_id", "subject", "subject_id"),
    *("clip", "video"),
)
SPLITS = ("split", "official_split", "subset", "partition", "usage", "phase", "set")
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
BOXES = ("xmin", "x_min", "xmax", "x_max", "bbox", "bbox_x", "bbox_x1", "x1", "x2")
INDEX = ("", "index", "unnamed:_0", "row", "no", "no.", "#")
DELIMITERS = (",", ";", "\t", "|", " ")
ONES = {"1", "1.0", "true"}
BITS = {"", "0", "0.0", "false", *ONES}
SAMPLE = 100  # rows that a delimiter is judged by
NO_CLASS = ("", "nan", "NaN", "#N/A")  # as pandas and spreadsheets write a missing one
NOT_TEXT = {
    b"PK\x03\x04": "an Excel workbook or another ZIP",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF",
}
# what text of an encoding is made of; most bytes are text in several
LETTERS = {
    "cp932": re.compile(r"(?=.*[ぁ-んァ-ヶ])[\0-\x7f一-龠々ぁ-んァ-ヶー。、・（）「」]*", re.S),
    "euc_kr": re.compile(r"[\0-\x7f가-힣ㄱ-ㆎ]*"),
    # an ideograph after a letter is two letters of Windows-1252
    "shift_jis": re.compile(r"([\0-\x7f]|(?<![A-Za-z])[一-龠々])*"),
    "cp949": re.compile(r"([\0-\x7f]|(?<![A-Za-z])[가-힣ㄱ-ㆎ])*"),
    "gb2312": re.compile(r"([\0-\x7f]|(?<![A-Za-z])[一-龥])*"),
}
SAVE = "save it as CSV in UTF-8, with the columns filename,class"


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
class Table:
    """A table as text: `lines[i]` is the line of the file where row i ends."""

    path: Path
    header: tuple[str, ...]
    rows: list[list[str]]  # each as long as the header
    lines: list[int]
    notes: tuple[str, ...]

    def values(self, column: int) -> list[str]:
        """Return one column."""
        return [row[column] for row in self.rows]

    def records(self) -> list[dict[str, str]]:
        """Return the rows as dictionaries."""
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Labels:
    """The labelled files of a table, in its order, without repetitions."""

    path: Path
    rows: list[Row]
    left_out: Counter[str]  # reason: rows
    notes: tuple[str, ...]  # how the table was read, where that was guessed
    no_splits: Counter[str] = field(default_factory=Counter)  # words of the split column: rows

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

    Raises:
        DataError: it is missing or no table, or its columns cannot be told apart.
    """
    columns = columns or Columns()
    by_name = any(name and not name.isdigit() for name in astuple(columns))
    table = read_table(path, header=True if by_name else None)
    return _labels(table, columns)


def read_table(path: Path, header: bool | None = None) -> Table:
    """Return a table; `header` says whether it has one, None leaves it to a guess.

    The columns of a table without a header are called 1, 2, ...

    Raises:
        DataError: it is missing, empty or no table.
    """
    text, notes = _text(Path(path))
    told = re.match(r'\s*"?sep=(.)"?[ \t]*(\r\n|\r|\n|$)', text)
    skipped = text[: told.end()].count("\n") if told else 0
    text = text[told.end() :] if told else text
    delimiter = told[1] if told else _delimiter(text)
    numbered = _parsed(path, text, delimiter, skipped)
    if not numbered:
        raise DataError(f"{path} is empty", "give it a header such as filename,class, and rows")
    rows = [[value.strip() for value in row] for _, row in numbered]
    lines = [line for line, _ in numbered]
    if header or (header is None and _is_header(rows)):
        names = tuple(rows[0])
        rows, lines = rows[1:], lines[1:]
        if rows and all(len(row) == len(names) + 1 for row in rows) and _differ(rows, 0):
            names = ("", *names)  # R leaves the name of the row names out
    else:
        names = tuple(str(number + 1) for number in range(max(map(len, rows))))
        notes += ("it has no header",)
    while names and not names[-1] and not any(len(row) >= len(names) and row[-1] for row in rows):
        names = names[:-1]  # a delimiter at the end of each line
    return Table(path, names, _filled(path, names, rows, lines), lines, notes)


def split_of(value: str, column: str = "") -> str:
    """Return train, validation or test for what tables call them in any case; else empty.

    In a `column` of `FLAGS` yes and no are told too; what is not to train on may be of two splits.
    """
    if (flag := FLAGS.get(_plain(column))) and value.lower() in BITS - {""}:
        return flag if _is_one(value) else "" if flag == "train" else "train"
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", value.strip()).lower()
    words = [word for word in re.split(r"[^a-z]+", apart) if word and word not in SPLIT_FILLERS]
    kinds = [kind for kind, pattern in SPLIT_KINDS.items() if re.match(pattern, "".join(words))]
    return kinds[0] if kinds else ""


def _text(path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "name a CSV of labels") from None
    for signature, kind in NOT_TEXT.items():
        if data.startswith(signature):
            raise DataError(f"{path} is {kind}, not text", SAVE)
    for encoding in _encodings(data):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding in LETTERS and not LETTERS[encoding].fullmatch(text):
            continue  # another encoding's letters
        plain = encoding == "utf-8-sig" or text.isascii()
        return text.removeprefix("\ufeff"), () if plain else (
            f"it is read as {encoding.upper().replace('_', '-')}",
        )
    raise DataError(f"{path} is not text in UTF-8, UTF-16 or Windows-1252", SAVE)


def _encodings(data: bytes) -> tuple[str, ...]:
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return ("utf-32",)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ("utf-16",)
    some = data[:400]
    if len(some) > 3 and some[1::2].count(0) * 2 > len(some[1::2]):
        return ("utf-16-le",)
    if len(some) > 3 and some[0::2].count(0) * 2 > len(some[0::2]):
        return ("utf-16-be",)
    return ("utf-8-sig", "cp932", "euc_kr", "gb2312", "shift_jis", "cp949", "cp1252")


def _delimiter(text: str) -> str:
    """Return the delimiter that gives most rows the same number of values, over one."""

    lines = list(islice((line for line in io.StringIO(text, newline=None) if line.strip()), SAMPLE))

    def fit(delimiter: str) -> tuple[float, int]:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        try:
            widths = Counter(len(row) for row in reader if any(value.strip() for value in row))
        except csv.Error:
            return 0, 0
        wide = {width: many for width, many in widths.items() if width > 1}
        best = max(wide, key=lambda width: (wide[width], width), default=1)
        return wide.get(best, 0) / max(1, widths.total()), best

    usual = [delimiter for delimiter in DELIMITERS[:-1] if lines and delimiter in lines[0]]
    return max(usual or DELIMITERS, key=fit)


def _parsed(path: Path, text: str, delimiter: str, line: int) -> list[tuple[int, list[str]]]:
    """Return (line, values) of each row that is not empty."""
    lines = io.StringIO(text, newline=None)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        found = [(line + reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line + reader.line_num}: {error}",
            'write a value that holds a quote as "...""...", or save the table anew as CSV',
        ) from None
    return [(at, row) for at, row in found if any(value.strip() for value in row)]


def _filled(
    path: Path, names: Sequence[str], rows: list[list[str]], lines: list[int]
) -> list[list[str]]:
    """Return the rows, each as long as the header; those that are too long have lost a quote."""
    for row, line in zip(rows, lines, strict=True):
        if any(row[len(names) :]):
            raise DataError(
                f"{path}, line {line}: {len(row)} values for {len(names)} columns",
                "put a value that holds the delimiter in quotes, and name every column",
            )
    return [row[: len(names)] + [""] * (len(names) - len(row)) for row in rows]


def _is_header(rows: list[list[str]]) -> bool:
    """Return whether the first row names the columns instead of being one of the rows."""
    first, others = rows[0], rows[1:]
    if any(value.lower().endswith(IMAGE_SUFFIXES) for value in first):
        return False
    known = {*FILENAMES, *CLASSES, *SPLITS, *GROUPS}
    if any(_plain(value) in known for value in first):
        return True
    for at, value in enumerate(first):
        below = [row[at] for row in others if at < len(row)]
        if value in below or (_is_number(value) and all(map(_is_number, below))):
            return False  # a header's words do not occur below it
    return True


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _differ(rows: Iterable[Sequence[str]], column: int) -> bool:
    values = [row[column] for row in rows]
    return len(set(values)) == len(values)


def _labels(table: Table, columns: Columns) -> Labels:
    marks = _marks(table, ())
    group = _named(table, columns.group, GROUPS, marks)
    split = _named(table, columns.split, SPLITS, marks)
    split = _named(table, None, tuple(FLAGS)) if split is None else split
    names = _filenames(table, columns.filename, {group, split} - {None})
    label = _named(table, columns.label, CLASSES, {names, group, split}, words=True)
    hot = [] if columns.label else _one_hot(table, {names, group, split}, label)
    label = None if hot else label
    if label is None and not hot:
        label = _only_one_left(table, {names, group, split})
    left_out: Counter[str] = Counter()
    no_splits: Counter[str] = Counter()
    rows = dict[tuple[str, str], Row]()
    for row in table.rows:
        ones = [table.header[at] for at in hot if _is_one(row[at])]
        name = _without_dots(row[names])
        value = row[label] if label is not None else ones[0] if len(ones) == 1 else ""
        own_split = split_of(row[split], table.header[split]) if split is not None else ""
        reason = _reason(name, value, len(ones), (name, value) in rows)
        if reason == "listed twice":
            _check_again(table, rows[name, value], own_split)
        if reason:
            left_out[reason] += 1
            continue
        own_group = row[group] if group is not None else ""
        if split is not None and row[split] and not own_split:
            no_splits[row[split]] += 1
        rows[name, value] = Row(name, value, own_group, own_split)
    said = {"file names": names, "classes": label, "groups": group, "splits": split}
    told = [f'{what} from "{table.header[at]}"' for what, at in said.items() if at is not None]
    told += [f"classes from {len(hot)} columns of 0 and 1"] if hot else []
    _check_boxes(table, names)
    usual = [_plain(table.header[names]), _plain(table.header[label]) if label is not None else ""]
    flagged = split is not None and _plain(table.header[split]) in FLAGS
    plain = usual == ["filename", "class"] and not flagged
    notes = table.notes + (() if plain else (", ".join(told),))
    return Labels(table.path, list(rows.values()), left_out, notes, no_splits)


def _reason(name: str, label: str, ones: int, listed: bool) -> str:
    """Return why a row is left out; empty if it is not."""
    if not name:
        return "no file name"
    if ones > 1:
        return "several classes"
    if label in NO_CLASS:
        return "no class"
    return "listed twice" if listed else ""


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
    boxes = [title for title in table.header if _plain(title) in BOXES]
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
        DataError: there is no column `name`, or the guess has a namesake of other values.
    """
    plain = [_plain(title) for title in table.header]
    if name is not None:
        if name in table.header:
            return table.header.index(name)
        if _plain(name) in plain:
            return plain.index(_plain(name))
        if name.isdigit() and 0 < int(name) <= len(plain):
            return int(name) - 1
        raise _unclear(table, f'has no column "{name}"')
    found = [plain.index(guess) for guess in guesses if guess in plain]
    free = [at for at in found if at not in set(taken)]
    if words:
        free.sort(key=lambda at: all(map(_is_number, table.values(at))))
    if free and any(table.values(free[0]) != table.values(at) for at in _namesakes(plain, free[0])):
        raise _unclear(table, f'has two columns "{table.header[free[0]]}"')
    return free[0] if free else None


def _namesakes(plain: Sequence[str], column: int) -> list[int]:
    return [at for at, title in enumerate(plain) if title == plain[column]]


def _filenames(table: Table, name: str | None, taken: Iterable[int | None]) -> int:
    if name is not None and (found := _named(table, name, ())) is not None:
        return found
    columns = [at for at in range(len(table.header)) if at not in set(taken)]
    images = [sum(v.lower().endswith(IMAGE_SUFFIXES) for v in table.values(at)) for at in columns]
    files = [at for at, many in zip(columns, images, strict=True) if many * 2 > len(table.rows)]
    titles = {_plain(table.header[at]): at for at in reversed(files or columns)}
    guess = next((titles[wanted] for wanted in FILENAMES if wanted in titles), None)
    if guess is not None:
        return guess
    if len(files) == 1 or (files and not table.rows):
        return files[0]
    columns = [at for at in columns if _plain(table.header[at]) not in (*INDEX, *CLASSES)]
    single = [at for at in columns if table.rows and _differ(table.rows, at)]
    if len(single) == 1 or (single and "it has no header" in table.notes):
        return single[0]
    raise _unclear(table, "has no column that is known to hold file names")


def _only_one_left(table: Table, taken: Iterable[int | None]) -> int:
    left = [at for at in range(len(table.header)) if at not in set(taken)]
    left = [at for at in left if _plain(table.header[at]) not in INDEX]
    if len(left) > 1:  # an index without a name, and what is the same or empty throughout
        counts = [[str(n + start) for n in range(len(table.rows))] for start in (0, 1)]
        left = [at for at in left if len(set(table.values(at))) > 1]
        left = [at for at in left if table.values(at) not in counts]
    if len(left) != 1:
        raise _unclear(table, "has no column that is known to hold classes")
    return left[0]


def _one_hot(table: Table, taken: Iterable[int | None], label: int | None) -> list[int]:
    """Return the columns of a class each: all of 0 and 1, and mostly one 1 in a row.

    A class may be called as an index is, if each row has a 1 then. So may it as `label`, the column
    that is called as one of classes is; else that holds the classes.
    """
    if marks := _marks(table, taken):
        return marks if label is None or label in marks else []
    hot = [at for at in _bits(table, taken) if _plain(table.header[at]) not in INDEX]
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


def _unclear(table: Table, problem: str) -> DataError:
    return DataError(
        f"{table.path} {problem}; it has {', '.join(table.header)}",
        "name the columns that hold file names and classes (--filename-column, --class-column), "
        "or call them filename and class",
    )


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+([.,]\d+)?", value) is not None


def _is_one(value: str) -> bool:
    return value.lower() in ONES
