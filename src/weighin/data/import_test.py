"""The test of an import: its images, with the classes that folders or a CSV of the truth give."""

import shutil
from pathlib import Path
from typing import Any

from weighin.data.import_index import ImportIndex
from weighin.errors import DataError
from weighin.file_names import fold, match
from weighin.files import write_csv
from weighin.label_csv import read_labels


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
    table = read_labels(path)
    labels = table.by_name()
    matches = match(labels, names)
    matches.refuse_ambiguous(path)
    if not matches.found:
        raise DataError(
            f"none of the {len(labels):,} files that {path} names is a test image: it names such "
            f"as {next(iter(labels))}, the test holds such as {names[0]}",
            "name the truth of this test",
        )
    index.notes += [f"truth: {note}" for note in table.notes]
    if matches.tolerances or matches.missing:
        such = f"; {matches.missing[0]} is not there" if matches.missing else ""
        index.notes.append(f"truth: {matches.words()}{such}")
    for reason, many in table.left_out.items():
        index.skip(f"in the truth: {reason}", path.name, many)
    found = {file: labels[name] for name, file in matches.found.items()}
    return found, len(labels) - len(found)


def _in_the_classes(known: dict[str, str], classes: set[str], index: ImportIndex) -> dict[str, str]:
    """Return a truth in the classes as the training images spell them.

    Raises:
        DataError: none of its classes is one that is trained on.
    """
    spelled = {fold(name.strip()): name for name in sorted(classes)}
    words = {label: spelled.get(fold(label.strip()), label) for label in known.values()}
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
