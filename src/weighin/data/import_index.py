"""The import index: what an import has copied so far, what it left out and why; and its test.

The test's images have the classes that folders or a CSV of the truth give.
"""

import itertools
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from weighin.data.annotations import LeftOut
from weighin.data.layout import Layout, read_test
from weighin.data.listing import LINKS, NOT_TEXT, copies, list_files
from weighin.data.shards import open_images, unpacking
from weighin.errors import DataError
from weighin.file_names import (
    VALIDATION,
    class_form,
    fold,
    is_text,
    match,
    printable,
    walk,
)
from weighin.files import sha256, write_csv
from weighin.image_formats import SIGNATURE, UnreadableImageError, open_image
from weighin.label_csv import NO_GROUP, Row, read_labels, read_matched

COPY = re.compile(r"\.rf\.[0-9A-Za-z]{16,}(?=\.\w+$)")  # what Roboflow puts into a copy's name
LONGEST = 255  # bytes of a name that file systems take
MAX_NAME = 200  # bytes of a class, of which files are called with more
HEAD, PIECE = 4096, 2**20  # bytes that tell what a file is; that are copied at once
ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")  # a byte that is not UTF-8, as it is shown
UNREADABLE = "it cannot be read"
UNMAPPED = "its category has no class"
WIDE_GROUP = 50  # images; a group that is larger, and over half of a class, tells nothing apart


@dataclass
class ImportIndex(LeftOut):
    """The images that an import has copied into `folder`, and what could not be brought there."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    test: list[tuple[Path, str, str]] = field(default_factory=list)  # file, name, class or empty
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)  # folders
    strange: dict[str, list[str]] = field(default_factory=dict)  # what it is: files
    words: dict[str, str] = field(default_factory=dict)  # category: class, where a mapping says it

    def heed(self, layout: Layout, where: str = "") -> None:
        """Take over what a layout says of a folder's files."""
        self.notes += layout.notes
        for reason, name in layout.left_out:
            self.skip(f"{where}{reason}", name)

    def files(self, folder: Path) -> list[str]:
        """Return the names of a folder's files; what is no file is counted.

        Raises:
            DataError: a folder in it has a name that is not UTF-8: a whole class would be lost.
        """
        listing = list_files(folder)
        for _, name, why in listing.faults:
            above = name.rpartition("/")[0]
            if why == NOT_TEXT and ESCAPED.search(above):
                problem = f"{folder}: the name of its folder {above} is not UTF-8"
                raise DataError(problem, remedy(folder, above, why))
            self.skip(why, name)
        return listing.names

    def copy(self, folder: Path, name: str, row: Row) -> None:
        """Copy the file `name` of `folder` in as `row` says; what cannot be read is left out."""
        try:  # plain files and texts for paths: half the time of pathlib's with buffers
            file = open(f"{folder}/{name}", "rb", buffering=0)  # noqa: PTH123, SIM115
            piece = file.read(PIECE)
        except OSError as error:
            self.skip(f"it cannot be read: {error.strerror}", name)
            return
        self.look(piece[:HEAD], name)
        with file, open(self.add(row), "wb", buffering=0) as copied:  # noqa: PTH123
            while piece:
                copied.write(piece)
                piece = file.read(PIECE) if len(piece) == PIECE else b""

    def look(self, head: bytes, name: str) -> None:
        """Count a file that does not begin as an image does; `prepare` decides on it."""
        if SIGNATURE.match(head):
            return
        try:
            open_image(head)
        except UnreadableImageError as error:
            if error.fault in ("not-an-image", "zero-byte"):
                self.strange.setdefault(str(error), []).append(name)

    def add(self, row: Row) -> str:
        """Return where the image of a new row is to be written."""
        self.rows.append(row)
        target = f"{self.folder}/{row.filename}"
        parent = os.path.dirname(target)  # noqa: PTH120
        if parent not in self.made:
            os.makedirs(parent, exist_ok=True)  # noqa: PTH103
            self.made.add(parent)
        return target

    def named(self, label: str, filename: str, group: str, split: str = "") -> Row:
        """Return a row for a file of any name: <class>/<its own name>, which no other has."""
        parts = [part.lstrip(".") for part in PurePosixPath(filename.replace("\\", "/")).parts]
        parts = [part for part in parts if part not in ("", "/")] or ["image"]
        name = f"{checked_class(label)}/{_short(parts[-1])}"
        if name.casefold() in self.taken:
            name = f"{label}/{_short('_'.join(parts))}"
        whole, count = PurePosixPath(name), 2
        while name.casefold() in self.taken:
            name = f"{label}/{_short(f'{whole.stem}_{count}{whole.suffix}')}"
            count += 1
        self.taken.add(name.casefold())
        return Row(name, label, group, split)

    def check_classes(self) -> None:
        """Refuse classes that look the same, and those that are validated but not trained on.

        Raises:
            DataError: it names both spellings, with their images, or the class.
        """
        images = Counter(row.label for row in self.rows)
        alike: dict[str, str] = {}
        for label in sorted(images):
            other = alike.setdefault(class_form(label), label)
            if other != label:
                one, two = (f'"{name}" ({images[name]:,} images)' for name in (other, label))
                raise DataError(
                    f"{one} and {two} are one class but for case, blanks, hyphens, zeros or what "
                    "is not seen",
                    "write both as one class, or give them names that differ by more",
                )
        trained = {row.label for row in self.rows if row.split != VALIDATION}
        for row in self.rows:
            if row.label not in trained:
                raise DataError(
                    f"the validation split has a class {row.label}, such as {row.filename}, which "
                    f"is not trained on; trained on are {', '.join(sorted(trained))}",
                    f"give it training images, write {row.label} as one of these, or remove its "
                    "images",
                )

    def refused_later(self) -> list[str]:
        """Return what `prepare` will refuse: a single class, or one that nothing validates."""
        classes = {row.label for row in self.rows}
        if len(classes) == 1:
            (only,) = classes
            return [
                f"all images are of one class, {only}: prepare will refuse them; two are needed"
            ]
        validated = {row.label for row in self.rows if row.split == VALIDATION}
        lacking = sorted(classes - validated) if validated else []
        return [
            f"the validation split has no image of {label}: prepare will refuse it; add some, or "
            "import without a split of your own (the training folder alone, or --split-column none)"
            for label in lacking[:1]
        ]

    def drop_no_groups(self) -> None:
        """Take the words by which tables say that a value is missing for no group."""
        missing = Counter(row.group for row in self.rows if row.group.lower() in NO_GROUP - {""})
        self.rows = [replace(row, group="") if row.group in missing else row for row in self.rows]
        for word, many in sorted(missing.items()):
            self.notes.append(f'the group "{word}" of {many:,} images is read as none')

    def tie_copies(self) -> None:
        """Make one group of the copies of a picture that Roboflow augmented, as turned or cut.

        A split that comes with the images stays; one that is chosen would part the copies.
        """
        if any(row.split == VALIDATION for row in self.rows):
            return
        pictures = [row.group or row.filename for row in self.rows]  # a box's group is its picture
        copies: dict[str, set[str]] = {}
        for name in filter(COPY.search, pictures):
            copies.setdefault(COPY.sub("", name), set()).add(name)
        copies = {name: own for name, own in copies.items() if len(own) > 1}
        for at, (name, row) in enumerate(zip(pictures, self.rows, strict=True)):
            if (one := COPY.sub("", name)) != name and one in copies:
                self.rows[at] = Row(row.filename, row.label, one, row.split)
        if copies:
            many = sum(map(len, copies.values()))
            self.notes.append(
                f"{many:,} images are copies of {len(copies):,} that Roboflow augmented; "
                "the copies of one stay in one split"
            )

    def write_table(self, path: Path) -> None:
        """Write train.csv; a group that tells nothing apart is none."""
        wide = wide_groups(self.rows)
        header: tuple[str, ...] = ("filename", "class", "group", "split")
        rows = sorted(
            (row.filename, row.label, "" if row.group in wide else _utf8(row.group), row.split)
            for row in self.rows
        )
        given = VALIDATION in {row.split for row in self.rows}
        write_csv(path, header if given else header[:3], rows if given else [r[:3] for r in rows])

    def report(self) -> dict[str, Any]:
        """Return the facts of import.json."""
        splits = Counter(row.split for row in self.rows)
        strange = [
            f"{len(names):,} {fault}: such as {names[0]}{', ' * bool(what)}{what}"
            for key, names in sorted(self.strange.items())
            for fault, _, what in (key.partition(": "),)
        ]
        return {
            "images": len(self.rows),
            "classes": dict(sorted(Counter(row.label for row in self.rows).items())),
            "validation": splits[VALIDATION],
            "missing": sorted(map(printable, self.missing)),
            "skipped": dict(sorted(self.skipped.items())),
            "such_as": {why: printable(name) for why, name in sorted(self.such_as.items())},
            "notes": [printable(note) for note in self.notes + strange],
            "wide_groups": list(map(printable, wide_groups(self.rows))),
        }


def _short(name: str) -> str:
    """Return a file's name, or if file systems take none as long its start with a hash of it."""
    if len(name.encode()) <= LONGEST:
        return name
    suffix = PurePosixPath(name).suffix
    tail = f"_{sha256(name.encode())[:16]}{suffix if len(suffix) <= 8 else ''}"
    return name.encode()[: LONGEST - len(tail.encode())].decode(errors="ignore") + tail


def _utf8(text: str) -> str:
    return text if is_text(text) else printable(text)


def barred(folder: Path) -> dict[str, str]:
    """Return {name: why} of what lies in a folder and cannot be taken."""
    listing = list_files(folder)
    closed = (name for name in listing.names if not os.access(folder / name, os.R_OK))
    return {name: why for _, name, why in listing.faults} | dict.fromkeys(closed, UNREADABLE)


def remedy(folder: Path, name: str, why: str) -> str:
    """Return what lets the file `name` of a folder be taken, that is not; empty if nothing does."""
    place = folder if folder.name.strip(".") else folder.resolve()
    if why in LINKS:
        command = f"cp -rL {shlex.quote(str(place))} {shlex.quote(f'{place}-copy')}"
        return f"copy what its links lead to, and name the copy instead: {command}"
    if why == NOT_TEXT:
        good = [*itertools.takewhile(lambda part: not ESCAPED.search(part), name.split("/"))]
        odd = "/".join(name.split("/")[: len(good) + 1])
        given = "?".join(map(shlex.quote, ESCAPED.split(f"{place}/{odd}")))
        return f"rename it: mv {given} {shlex.quote('/'.join((str(place), *good, 'NEW_NAME')))}"
    if why == UNREADABLE:
        return f"make it readable: chmod -R a+rX {shlex.quote(str(place))}"
    return unpacking(folder / name)


def checked_class(label: str) -> str:
    """Return `label` if it can name a folder.

    Raises:
        DataError: it is empty, hidden or has a path in it.
    """
    if (
        not label.strip()
        or label[0] == "."
        or any(c in label for c in "/\\\0\n")
        or not is_text(label)
    ):
        fix = "rename the class where it is named, or map it with a mapping CSV"
        raise DataError(f'class "{_utf8(label)}" cannot be the name of a folder', fix)
    if len(os.fsencode(label)) > MAX_NAME:
        raise DataError(f'class "{label[:40]}…" has a name of {len(label)} letters', "shorten it")
    return label


def wide_groups(rows: list[Row]) -> list[str]:
    """Return the groups that tell nothing apart, sorted.

    A value such as ``split=train`` on every image would tie a whole class to one split.
    """
    labels = Counter(row.label for row in rows)
    groups = Counter(row.group for row in rows)
    both = Counter((row.group, row.label) for row in rows)
    wide = {
        group
        for (group, label), count in both.items()
        if group and groups[group] > WIDE_GROUP and count * 2 > labels[label]
    }
    return sorted(wide)


def choose_test(index: ImportIndex, folder: Path) -> None:
    """Let the files of a folder be the test of `index`, whatever the source's own is.

    Raises:
        DataError: it holds no file.
    """
    if index.test:
        index.notes.append(f"the source's own test is not taken, but {folder.name}")
    layout = read_test(index.files(folder), {*index.words, *(row.label for row in index.rows)})
    if not layout.files:
        fixes = (remedy(folder, name, why) for name, why in barred(folder).items())
        fix = next(filter(None, fixes), "name the folder of the test images")
        raise DataError(f"{folder} holds no file", fix)
    index.heed(layout, "in the test: ")
    index.test = [(folder / file.name, file.rest, file.label) for file in layout.files]


def keep_test(
    into: Path, new: Path, copy: Callable[[str, str], object], classes: Collection[str]
) -> list[str]:
    """Take over the test of an earlier import, so that it is there twice until the other goes.

    One whose truth has other classes than the data that came in is of another data set, and stays
    behind. Returns what was done, in words.
    """
    images = sum(1 for path in (into / "test").rglob("*") if path.is_file())
    truth = into / "test_truth.csv"
    labels = {row.label for row in read_labels(truth).rows} if truth.exists() else set()
    if others := sorted(labels - {*classes}):
        return [
            f"the {images:,} test images of the earlier import are left out: their truth has "
            f"classes that are none now, such as {others[0]}; --test and --truth name a test"
        ]
    if (into / "test").is_dir():
        shutil.copytree(into / "test", new / "test", copy_function=copy)
    if truth.exists():
        copy(str(truth), str(new / "test_truth.csv"))
    if not images:
        return []
    return [
        f"the {images:,} test images of the earlier import are kept; --test names others, "
        "--no-test leaves them out"
    ]


def copies_in_test(data: Path) -> list[tuple[str, str]]:
    """Return (test image, training image) of the files of data/test that data/train has too.

    Raises:
        DataError: data/train holds no image, or a broken shard.
    """
    if not (data / "test").is_dir():
        return []
    sizes = {entry.stat().st_size for _, entry in walk(data / "test") if entry.is_file()}
    train = open_images(data / "train")
    known = train.hashes(train.names, sizes)  # of another size than any test image it is another
    return copies(data / "test", known)


def told_copies(data: Path) -> list[str]:
    """Return a line that says which test images are images of the training folder, if any are."""
    found = copies_in_test(data)
    return [
        f"data/test: {len(found):,} images are also in data/train, byte for byte, such as "
        f"{test} and {image}; figures on them say nothing of unseen images"
        for test, image in found[:1]
    ]


def copies_in_validation(index: ImportIndex) -> list[str]:
    """Return a line that says which validation images are trained on too, if any are."""
    validated = [row.filename for row in index.rows if row.split == VALIDATION]
    if not validated:
        return []
    images = open_images(index.folder)
    trained = (row.filename for row in index.rows if row.split != VALIDATION)
    known = images.hashes(trained, {images.size(name) for name in validated})
    hashes = ((name, sha256(images.read(name))) for name in validated if known)
    found = [(name, known[digest]) for name, digest in hashes if digest in known]
    return [
        f"the validation split: {len(found):,} images are also trained on, byte for byte, such as "
        f"{name} and {image}; prepare.faults.duplicate decides what becomes of them"
        for name, image in found[:1]
    ]


def write_test(index: ImportIndex, truth: Path | None, new: Path) -> dict[str, Any]:
    """Write the test images of `index`, and their classes where known; return its facts."""
    classes = {row.label for row in index.rows}
    sources: dict[str, Path] = {}
    for path, name, _ in index.test:
        if (other := sources.setdefault(fold(name), path)) is not path:
            fix = "rename one of them, then run the same command again"
            raise DataError(f"{other} and {path} would both be the test image {name}", fix)
        target = new / "test" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_readable(path, target, index)
    facts: dict[str, Any] = {"images": len(index.test)}
    known = {name: label for _, name, label in index.test if label}
    if truth is not None:
        known, absent = _truth(truth, [name for _, name, _ in index.test], index)
        facts["truth_without_image"] = absent
    if known:
        known = _in_the_classes(known, classes, index)
        write_csv(new / "test_truth.csv", ("filename", "class"), sorted(known.items()))
        facts["without_truth"] = len(index.test) - len(known)
        if len(known) > 1 and len(only := {*known.values()}) == 1 < len(classes):
            index.notes.append(
                f"the truth gives all {len(known):,} test images the class {only.pop()}; the "
                "sample of a submission is no truth: leave --truth out if it is one"
            )
    return facts


def _copy_readable(source: Path, target: Path, index: ImportIndex) -> None:
    try:
        with source.open("rb") as file:
            index.look(file.peek(4096), f"{source.name} of the test")
    except OSError as error:
        fix = "make it readable or remove it from the test, then run the same command again"
        raise DataError(f"the test image {source} cannot be read: {error.strerror}", fix) from None
    shutil.copyfile(source, target)


def _truth(path: Path, names: list[str], index: ImportIndex) -> tuple[dict[str, str], int]:
    """Return {test file: class}, and how many files the truth names that are not there."""
    table, matches = read_matched(path, lambda own: match(own, names))
    labels = table.by_name()
    matches.refuse_ambiguous(path)
    if not matches.found:
        raise DataError(
            f"none of the {len(labels):,} files that {path} names is a test image: it names such "
            f"as {next(iter(labels))}, the test holds such as {names[0]}{table.told}",
            "name the truth of this test",
        )
    index.notes += [f"truth: {note}" for note in table.notes]
    if matches.tolerances or matches.missing:
        such = f"; {matches.missing[0]} is not there" if matches.missing else ""
        index.notes.append(f"truth: {matches.words()}{such}")
    for reason, many in table.left_out.items():
        index.skip(f"in the truth: {reason}", path.name, many)
    return matches.of_files(labels, path), len(matches.missing)


def _in_the_classes(known: dict[str, str], classes: set[str], index: ImportIndex) -> dict[str, str]:
    """Return a truth in the classes as the training images spell them.

    Raises:
        DataError: none of its classes is one that is trained on.
    """
    spelled = {class_form(name): name for name in classes}
    words = {
        label: spelled.get(class_form(label)) or index.words.get(label) or label
        for label in known.values()
    }
    strange = sorted({word for word in words.values() if word not in classes})
    listed = f"the training images' classes are {', '.join(sorted(classes))}"
    if len(strange) == len(set(words.values())):
        raise DataError(
            f"no class of the truth is trained on: it has {', '.join(strange)}; {listed}",
            "write the classes of the truth as the training images' folders are called",
        )
    if strange:
        many = sum(words[label] in strange for label in known.values())
        index.notes.append(
            f"truth: {many:,} test images are of classes that are not trained on: "
            f"{', '.join(strange)}"
        )
    return {name: words[label] for name, label in known.items()}
