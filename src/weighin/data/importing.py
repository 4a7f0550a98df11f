"""Brings a data set in as data/, whole or not at all.

    data/train/<Class>/...      the labelled images
    data/train.csv              filename (below data/train), class, group
    data/test/                  unlabelled images, flat (when a test folder is given)
    data/test_truth.csv         filename, class (when their truth is known)
    data/import.json            what came in and what did not

The source is a class-per-folder tree, a CSV of file names and classes, or a COCO file.
"""

import io
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from weighin.data.coco import Coco, cut, read_coco
from weighin.data.listing import class_of, list_images
from weighin.data.table import Row, find_file, find_folder, read_rows, wide_groups
from weighin.errors import DataError
from weighin.files import NEW, replace_folder, write_csv, write_json
from weighin.images import Pixels, UnreadableImageError, decode

DEMO = "demo.json"  # marks a folder that was drawn, test and all


@dataclass(frozen=True)
class Options:
    """How a source is read; None leaves it to a guess."""

    images: Path | None = None  # the folder that a CSV or COCO file speaks of
    filename: str | None = None  # column names of a CSV
    label: str | None = None
    group: str | None = None
    mapping: Path | None = None  # COCO category to class
    margin: float = 0.1  # around a COCO box, as a share of its sides
    test: Path | None = None  # a flat folder of unlabelled images
    truth: Path | None = None  # their classes


@dataclass
class ImportIndex:
    """The images that an import has copied into `folder`, and what could not be brought there."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)  # reason: annotations
    taken: set[str] = field(default_factory=set)

    def copy(self, source: Path, row: Row) -> None:
        """Copy the file `source` in as `row` says."""
        with source.open("rb") as file, self.add(row).open("wb") as copied:
            shutil.copyfileobj(file, copied, 2**20)

    def add(self, row: Row) -> Path:
        """Return where the image of a new row is to be written."""
        self.rows.append(row)
        target = self.folder / row.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def named(self, label: str, filename: str, group: str) -> Row:
        """Return a row for a file of any name: <class>/<its own name>, which no other has."""
        parts = [part.lstrip(".") for part in PurePosixPath(filename.replace("\\", "/")).parts]
        parts = [part for part in parts if part not in ("", "/")] or ["image"]
        name = f"{checked_class(label)}/{parts[-1]}"
        if name.casefold() in self.taken:
            name = f"{label}/{'_'.join(parts)}"
        stem, count = PurePosixPath(name), 2
        while name.casefold() in self.taken:
            name, count = str(stem.with_name(f"{stem.stem}_{count}{stem.suffix}")), count + 1
        self.taken.add(name.casefold())
        return Row(name, label, group)

    def table(self) -> list[tuple[str, str, str]]:
        """Return the rows of train.csv, sorted: filename, class, group; a wide group is none."""
        wide = wide_groups(self.rows)
        rows = (
            (row.filename, row.label, "" if row.group in wide else row.group) for row in self.rows
        )
        return sorted(rows)

    def report(self) -> dict[str, Any]:
        """Return the facts of import.json."""
        return {
            "images": len(self.rows),
            "classes": dict(sorted(Counter(row.label for row in self.rows).items())),
            "missing": sorted(self.missing),
            "skipped": dict(sorted(self.skipped.items())),
            "wide_groups": wide_groups(self.rows),
        }


def checked_class(label: str) -> str:
    """Return `label` if it can name a folder.

    Raises:
        DataError: it is empty, hidden or has a path in it.
    """
    if not label.strip() or label[0] == "." or any(c in label for c in "/\\\0\n"):
        fix = "rename the class in the CSV, or map it with a mapping CSV"
        raise DataError(f'class "{label}" cannot be the name of a folder', fix)
    return label


def import_data(source: Path, into: Path, options: Options | None = None) -> dict[str, Any]:
    """Replace the folder `into` by the data set `source` and return what came in.

    What an earlier import left there as its test stays, unless `options.test` names another; a
    test that was drawn with the default set does not.

    Raises:
        DataError: the source is none of the three kinds, or nothing in it can be used.
        OutputError: the disk is full or the folder cannot be written; `into` is as it was.
    """
    options = options or Options()
    with replace_folder(into) as draft:
        new = draft / NEW
        index = ImportIndex(new / "train")
        kind = _read(source, index, options)
        report = {"kind": kind, **index.report()}
        write_csv(new / "train.csv", ("filename", "class", "group"), index.table())
        if options.test is not None:
            report["test"] = _test(options.test, options.truth, new)
        write_json(new / "import.json", report)
        if options.test is None and into.is_dir() and not (into / DEMO).exists():
            _keep_test(into, new)
    return report


def _read(source: Path, index: ImportIndex, options: Options) -> str:
    if source.is_dir():
        _tree(source, index)
        return "folder"
    if not source.exists():
        raise DataError(f"{source} does not exist", "name a folder, a CSV file or a COCO file")
    suffix = source.suffix.lower()
    if suffix in (".csv", ".tsv"):
        _table(source, index, options)
        return "csv"
    if suffix == ".json":
        _coco(source, index, options)
        return "coco"
    raise DataError(f"{source} is no folder, .csv or .json", "name one of these")


def _tree(source: Path, index: ImportIndex) -> None:
    listing = list_images(source)
    if "train" in listing.classes():
        fix = f"name {source / 'train'} instead, and the test images with --test"
        raise DataError(f"{source} holds a folder train, which is no class", fix)
    index.missing += [f"{name}: {why}" for f, name, why in listing.faults if f != "alike-names"]
    for name in listing.names:
        parts = name.split("/")
        group = parts[1] if len(parts) > 2 else ""
        index.copy(source / name, Row(name, class_of(name), group))


def _table(source: Path, index: ImportIndex, options: Options) -> None:
    rows = list(dict.fromkeys(read_rows(source, options.filename, options.label, options.group)))
    folder = options.images or find_folder(source, rows)
    for row in rows:
        path = find_file(folder, row.filename)
        if path is None:
            index.missing.append(row.filename)
        else:
            name = row.filename + path.suffix * (path.name != PurePosixPath(row.filename).name)
            index.copy(path, index.named(row.label, name, row.group))
    if not index.rows:
        raise DataError(
            f"none of the {len(rows)} files that {source} names is in {folder}",
            "name the folder of the images with --images",
        )


def _coco(source: Path, index: ImportIndex, options: Options) -> None:
    coco = read_coco(source, options.mapping)
    index.skipped += coco.skipped
    folder = options.images or source.parent
    for name in coco.crops:
        path = find_file(folder, name) or find_file(folder / "images", name)
        if path is None:
            index.missing.append(name)
            continue
        try:
            pixels = decode(path.read_bytes()).pixels
        except UnreadableImageError as error:
            index.skipped[f"its image is unreadable ({error})"] += len(coco.crops[name])
            continue
        _crops(pixels, name, coco, index, options.margin)
    if not index.rows:
        raise DataError(
            f"none of the {len(coco.crops):,} images that {source} annotates can be used, such as "
            f"{next(iter(coco.crops), '')} in {folder}; {coco.words()}",
            "name the folder of the images with --images",
        )


def _crops(pixels: Pixels, name: str, coco: Coco, index: ImportIndex, margin: float) -> None:
    for crop in coco.crops[name]:
        piece = cut(pixels, crop.box, coco.sizes[name], margin)
        if piece is None:
            index.skipped["its box does not fit its image"] += 1
            continue
        filename = f"{PurePosixPath(name).stem}_{crop.annotation}.jpg"
        out = io.BytesIO()
        Image.fromarray(piece).save(out, "JPEG", quality=95, subsampling=0)
        index.add(index.named(crop.label, filename, name)).write_bytes(out.getvalue())


def _test(folder: Path, truth: Path | None, new: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "name the folder of the test images")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for name in names if (path := find_file(folder, name)) is not None]
    if not files:
        raise DataError(f"{folder} holds no file", "name the flat folder of the test images")
    (new / "test").mkdir()
    for file in files:
        shutil.copyfile(file, new / "test" / file.name)
    if truth is None:
        return {"images": len(files)}
    known = {PurePosixPath(row.filename).name: row.label for row in read_rows(truth)}
    pairs = [(file.name, known[file.name]) for file in files if file.name in known]
    write_csv(new / "test_truth.csv", ("filename", "class"), pairs)
    return {
        "images": len(files),
        "without_truth": len(files) - len(pairs),
        "truth_without_image": len(known) - len(pairs),
    }


def _keep_test(into: Path, new: Path) -> None:
    """Link the test of an earlier import, so that it is there twice until the other goes."""
    if (into / "test").is_dir():
        shutil.copytree(into / "test", new / "test", copy_function=_link)
    if (into / "test_truth.csv").exists():
        _link(into / "test_truth.csv", new / "test_truth.csv")


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system that has no links
        shutil.copyfile(source, target)
