"""Reads a table as text, in any dialect that spreadsheets and contests write.

Encodings are UTF-8, UTF-16, UTF-32, those of `LETTERS` and Windows-1252; values are parted by
commas, semicolons, tabs, bars or blanks; there may be a line ``sep=;``, empty lines, a header or
none. What was guessed is returned as notes. Of a file of JSON lines each line is a row, its keys
the columns.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from weighin.errors import DataError
from weighin.file_names import IMAGE_SUFFIXES, printable

# column names, the likeliest first; a header is compared in lower case, blanks as "_"
FILENAMES = (
    *("filename", "file_name", "file", "image", "image_path", "path", "image_id", "name"),
    *("image_name", "img", "img_name", "img_path", "filepath", "file_path", "image_file"),
    *("imagename", "photo", "picture", "filenames", "images", "url", "id", "key"),
)
TRUTHS = ("ground_truth", "truth")
CLASSES = (
    *("class", "label", "category", "class_name", "target", "class9", "label_name"),
    *("category_name", "classname", "labels", "classes", "species", "breed", "diagnosis"),
    *("variety", "tag", "y", "class_id", "category_id", "label_id", *TRUTHS),
)
PREDICTIONS = (
    *("prediction", "predicted", "pred", "predictions", "preds", "predicted_class", "pred_class"),
    *("predicted_label", "pred_label", "class_pred", "label_pred", "y_pred"),
)
GROUPS = (
    *("group", "group_id", "scene", "session", "patient", "patient_id", "subject", "subject_id"),
    *("clip", "video"),
)
SPLITS = ("split", "official_split", "subset", "partition", "usage", "phase", "set")
KNOWN = {*FILENAMES, *CLASSES, *PREDICTIONS, *GROUPS, *SPLITS}
TOP = 10  # rows in which a header is looked for
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
SAMPLE = 100  # rows that a delimiter is judged by, and what is no header
NOT_TEXT = {
    b"PK\x03\x04": "an Excel workbook or another ZIP",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF",
}
# what text of an encoding is made of; most bytes are text in several
LETTERS = {
    # words as Cyrillic writes them, one of four small letters among them: of the 55,000 most usual
    # words of Chinese in GB2312, 14 look so
    "cp1251": re.compile(
        r"(?=.*[а-я]{4})([\0-\x7f«»„“”’–—…№]|(?<![A-Za-zА-яЁёІЇЄҐЎіїєґў])"
        r"([А-ЯЁІЇЄҐЎ]?[а-яёіїєґў]+|[А-ЯЁІЇЄҐЎ]+)(?![A-Za-zА-яЁёІЇЄҐЎіїєґў]))*+",
        re.S,
    ),
    "cp932": re.compile(r"(?=.*[ぁ-んァ-ヶ])[\0-\x7f一-龠々ぁ-んァ-ヶー。、・（）「」]*", re.S),
    "euc_kr": re.compile(r"[\0-\x7f가-힣ㄱ-ㆎ]*"),
    # an ideograph after a letter is two letters of Windows-1252
    "shift_jis": re.compile(r"([\0-\x7f]|(?<![A-Za-z])[一-龠々])*"),
    "cp949": re.compile(r"([\0-\x7f]|(?<![A-Za-z])[가-힣ㄱ-ㆎ])*"),
    "gb2312": re.compile(r"([\0-\x7f]|(?<![A-Za-z])[一-龥])*"),
}
JSON_LINES = (".jsonl", ".ndjson")
STRANGE = re.compile(r"\b\w{0,40}[^\W\0-\x7f]\w{0,40}")  # a word of more than ASCII
SAVE = "save it as CSV in UTF-8, with the columns filename,class"


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


def read_table(path: Path, header: bool | None = None, named: Sequence[str] = ()) -> Table:
    """Return a table; `header` says whether it has one, None leaves it to a guess.

    The columns of a table without a header are called 1, 2, ... A title above the header is left
    out; columns that are `named` tell a header from it.

    Raises:
        DataError: it is missing, empty or no table.
    """
    text, notes = _text(Path(path))
    if Path(path).suffix.lower() in JSON_LINES:
        return _of_objects(path, text, notes)
    told = re.match(r'\s*"?sep=(.)"?[ \t]*(\r\n|\r|\n|$)', text)
    skipped = text[: told.end()].count("\n") if told else 0
    text = text[told.end() :] if told else text
    delimiter = told[1] if told else _delimiter(text)
    numbered = _parsed(path, text, delimiter, skipped)
    if not numbered:
        raise DataError(f"{path} is empty", "give it a header such as filename,class, and rows")
    rows = [[value.strip() for value in row] for _, row in numbered]
    lines = [line for line, _ in numbered]
    if titles := _titles(rows, {*map(column_key, named)}):
        title = printable(" ".join(filter(None, rows[0])))
        notes += (f'what stands above its header is not read: "{title}"',)
        rows, lines = rows[titles:], lines[titles:]
    if delimiter == " ":  # where no other is found; a name may have been cut
        notes += ("its values are parted by blanks: one that holds some needs quotes",)
    if header or (header is None and _is_header(rows)):
        names = tuple(rows[0])
        rows, lines = rows[1:], lines[1:]
        if rows and all(len(row) == len(names) + 1 for row in rows) and differ(rows, 0):
            names = ("", *names)  # R leaves the name of the row names out
    else:
        names = tuple(str(number + 1) for number in range(_width(rows)))
        notes += ("it has no header",)
    while names and not names[-1] and not any("".join(row[len(names) - 1 :]) for row in rows):
        names = names[:-1]  # a delimiter at the end of each line
    parted = DELIMITERS.get(delimiter, f'"{delimiter}"')
    return Table(path, names, _filled(path, names, rows, lines, parted), lines, notes)


def _of_objects(path: Path, text: str, notes: tuple[str, ...]) -> Table:
    """Return JSON lines as a table; keys of lists or objects are no columns, and that is said."""
    found: dict[int, dict[str, object]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found[number] = {**json.loads(line)}
            except (ValueError, TypeError, RecursionError):
                raise DataError(
                    f"{path}, line {number}: it is no JSON object",
                    'write each line as {"filename": "a.jpg", "class": "cat"}',
                ) from None
    if not found:
        raise DataError(f"{path} is empty", "write a line for each image into it")
    keys = dict.fromkeys(key for row in found.values() for key in row)
    deep = [k for k in keys if any(isinstance(r.get(k), list | dict) for r in found.values())]
    notes += (f"{', '.join(deep)}: no plain values, not read",) if deep else ()
    header = tuple(key for key in keys if key not in deep)
    rows = [
        ["" if (v := row.get(k)) is None else str(v).strip() for k in header]
        for row in found.values()
    ]
    return Table(path, header, rows, [*found], notes)


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
        text = text.removeprefix("\ufeff")
        if encoding == "utf-8-sig" or text.isascii():
            return text, ()
        word = None if encoding.startswith("utf") else STRANGE.search(text)
        shown = f', such as "{printable(word[0])}"' if word else ""
        return text, (f"it is read as {encoding.upper().replace('_', '-')}{shown}",)
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
    return ("utf-8-sig", "cp1251", "cp932", "euc_kr", "gb2312", "shift_jis", "cp949", "cp1252")


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

    usual = [mark for mark in DELIMITERS if mark != " " and lines and mark in lines[0]]
    return max(usual or DELIMITERS, key=fit)


def _parsed(path: Path, text: str, delimiter: str, line: int) -> list[tuple[int, list[str]]]:
    """Return (line, values) of each row that is not empty."""
    lines = io.StringIO(text, newline=None)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    found: list[tuple[int, list[str]]] = []
    begins = line + 1  # the row that is being read: a quote that is not closed takes many lines
    try:
        for row in reader:
            begins = line + reader.line_num + 1
            if any(value.strip() for value in row):
                found.append((begins - 1, row))
    except csv.Error as error:
        open_quote = "unexpected end" in str(error)
        raise DataError(
            f"{path}, line {begins}: {'a quote that nothing closes' if open_quote else error}",
            'write a value that holds a quote as "...""...", or save the table anew as CSV',
        ) from None
    return found


def _filled(
    path: Path, names: Sequence[str], rows: list[list[str]], lines: list[int], parted: str
) -> list[list[str]]:
    """Return the rows, each as long as the header; those that are too long have lost a quote."""
    for row, line in zip(rows, lines, strict=True):
        if any(row[len(names) :]):
            raise DataError(
                f"{path}, line {line}: {len(row)} values for {len(names)} columns, parted by "
                f"{parted}",
                f'put a value that holds {parted} in quotes ("), or name every column in a header',
            )
    return [row[: len(names)] + [""] * (len(names) - len(row)) for row in rows]


def _width(rows: list[list[str]]) -> int:
    """Return how many values most rows have, but for empty ones at their end."""
    widths = Counter(max(at for at, value in enumerate(row, 1) if value) for row in rows)
    return max(widths, key=lambda width: (widths[width], width))


def _titles(rows: list[list[str]], named: set[str]) -> int:
    """Return how many rows stand above the header: none, unless a later row is more like it."""
    top = [[column_key(value) for value in row] for row in rows[:TOP]]
    several = sum(map(bool, top[0])) > 1
    known = not {*top[0]}.isdisjoint({*KNOWN, *named})
    if (several and known) or _names_image(rows[0]):
        return 0
    sure = (len({*row} & KNOWN) > 1 or {*row} & named for row in top)
    alone = not (several or known) and len(rows[0]) > 1  # as spreadsheets write a title
    likely = alone and len(rows) > 2 and sum(map(bool, rows[1])) > 1 and _is_header(rows[1:])
    return next((at for at, is_header in enumerate(sure) if is_header), int(likely))


def _is_header(rows: list[list[str]]) -> bool:
    """Return whether the first row names the columns instead of being one of the rows."""
    first, others = rows[0], rows[1:]
    if _names_image(first):
        return False
    if any(column_key(value) in KNOWN for value in first):
        return True
    for at, value in enumerate(first):
        below = [row[at] for row in others if at < len(row)]
        counted = _shape(value) in map(_shape, below[:SAMPLE])  # im0 above im1, im2
        if value in below or counted or (is_number(value) and all(map(is_number, below))):
            return False  # a header's words do not occur below it
    return True


def _names_image(row: list[str]) -> bool:
    return any(value.lower().endswith(IMAGE_SUFFIXES) for value in row)


def _shape(value: str) -> str:
    """Return what a value has in common with those that are counted on from it, or are hashes."""
    stem = value.replace("\\", "/").rpartition("/")[2]
    hashed = re.fullmatch(r"(?=.*\d)[0-9a-f-]{8,}", stem.lower())
    return f"{len(stem)} hexadecimal digits" if hashed else re.sub(r"\d+", "0", stem)


def column_key(name: str) -> str:
    """Return a column's name as it is compared: in lower case, blanks as "_"."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def differ(rows: Iterable[Sequence[str]], column: int) -> bool:
    """Whether no two rows have the same value in a column."""
    values = [row[column] for row in rows]
    return len(set(values)) == len(values)


def is_number(value: str) -> bool:
    """Whether a value is a number in digits."""
    return re.fullmatch(r"[+-]?\d+([.,]\d+)?", value) is not None
