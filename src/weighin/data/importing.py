"""Brings a data set in as data/, whole or not at all.

    data/train/<Class>/...      the labelled images
    data/train.csv              filename (below data/train), class, group
    data/test/                  unlabelled images, flat (when a test folder is given)
    data/test_truth.csv         filename, class (when their truth is known)
    data/import.json            what came in and what did not

The source is a class-per-folder tree, a CSV of file names and classes, or a COCO file.
"""

import io
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from weighin.data.coco import Coco, cut, read_coco
from weighin.data.listing import class_of, list_images
from weighin.data.table import Row, find_folder, read_rows, without_wide_groups
from weighin.errors import DataError, OutputError
from weighin.files import write_csv, write_json
from weighin.images import Pixels, UnreadableImageError, decode

PIECES = ("train", "train.csv", "test", "test_truth.csv", "import.json")


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
class Arrivals:
    """What has been copied so far."""

    folder: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)  # filename, class, group
    missing: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    wide_groups: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def place(self, label: str, filename: str, group: str) -> Path:
        """Return where a new image of a class goes, under a name that no other has."""
        plain = PurePosixPath(filename.replace("\\", "/"))
        parts = [part for part in plain.parts if part not in ("/", "..")]
        name = f"{checked_class(label)}/{parts[-1]}"
        if name.casefold() in self.taken:
            name = f"{label}/{'_'.join(parts)}"
        stem, count = PurePosixPath(name), 2
        while name.casefold() in self.taken:
            name, count = str(stem.with_name(f"{stem.stem}_{count}{stem.suffix}")), count + 1
        self.taken.add(name.casefold())
        self.rows.append((name, label, group))
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def report(self, kind: str) -> dict[str, Any]:
        """Return the facts of import.json."""
        return {
            "kind": kind,
            "images": len(self.rows),
            "classes": dict(sorted(Counter(label for _, label, _ in self.rows).items())),
            "missing": sorted(self.missing),
            "skipped": dict(sorted(self.skipped.items())),
            "wide_groups": self.wide_groups,
        }


def import_data(source: Path, into: Path, options: Options | None = None) -> dict[str, Any]:
    """Replace `into`/train by the data set `source` and return what came in.

    A test folder that was there stays unless `options.test` names another.

    Raises:
        DataError: the source is none of the three kinds, or nothing in it can be used.
        OutputError: the disk is full or the folder cannot be written; `into` is as it was.
    """
    options = options or Options()
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as name:
            draft = Path(name)
            arrivals = Arrivals(draft / "train")
            kind = _read(source, arrivals, options)
            report = arrivals.report(kind)
            arrivals.rows.sort()
            write_csv(draft / "train.csv", ("filename", "class", "group"), arrivals.rows)
            if options.test is not None:
                report["test"] = _test(options.test, options.truth, draft)
            write_json(draft / "import.json", report)
            _swap(draft, into, options.test is not None)
    except OSError as error:
        problem = f"cannot import into {into}: {error.strerror or error}"
        mend = "free some space or make its folder writable, then run the same command again"
        raise OutputError(problem, mend) from error
    return report


def checked_class(label: str) -> str:
    """Return `label` if it can name a folder.

    Raises:
        DataError: it is empty, hidden or has a path in it.
    """
    if not label.strip() or label.startswith(".") or any(c in label for c in "/\\\0\n"):
        mend = "rename the class in the CSV, or map it with a mapping CSV"
        raise DataError(f'class "{label}" cannot be the name of a folder', mend)
    return label


def _read(source: Path, arrivals: Arrivals, options: Options) -> str:
    if source.is_dir():
        _tree(source, arrivals)
        return "folder"
    if not source.exists():
        raise DataError(f"{source} does not exist", "name a folder, a CSV file or a COCO file")
    suffix = source.suffix.lower()
    if suffix in (".csv", ".tsv"):
        _table(source, arrivals, options)
        return "csv"
    if suffix == ".json":
        _coco(source, arrivals, options)
        return "coco"
    raise DataError(f"{source} is no folder, .csv or .json", "name one of these")


def _tree(source: Path, arrivals: Arrivals) -> None:
    listing = list_images(source)
    if "train" in listing.classes():
        mend = f"name {source / 'train'} instead, and the test images with --test"
        raise DataError(f"{source} holds a folder train, which is no class", mend)
    arrivals.missing += [f"{name}: {d}" for f, name, d in listing.faults if f != "alike-names"]
    for name in listing.names:
        parts = name.split("/")
        target = arrivals.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
        arrivals.rows.append((name, class_of(name), parts[1] if len(parts) > 2 else ""))


def _table(source: Path, arrivals: Arrivals, options: Options) -> None:
    rows = read_rows(source, options.filename, options.label, options.group)
    rows, arrivals.wide_groups = without_wide_groups(list(dict.fromkeys(rows)))
    folder = options.images or find_folder(source, rows)
    for row in rows:
        path = _inside(folder, row.filename)
        if path is None:
            arrivals.missing.append(row.filename)
        else:
            shutil.copyfile(path, arrivals.place(row.label, row.filename, row.group))
    if not arrivals.rows:
        raise DataError(
            f"none of the {len(rows)} files that {source} names is in {folder}",
            "name the folder of the images with --images",
        )


def _coco(source: Path, arrivals: Arrivals, options: Options) -> None:
    coco = read_coco(source, options.mapping)
    arrivals.skipped += coco.skipped
    folder = options.images or source.parent
    for name in coco.crops:
        path = _inside(folder, name) or _inside(folder / "images", name)
        if path is None:
            arrivals.missing.append(name)
            continue
        try:
            pixels = decode(path.read_bytes()).pixels
        except UnreadableImageError as error:
            arrivals.skipped[f"its image is unreadable ({error})"] += len(coco.crops[name])
            continue
        _crops(pixels, name, coco, arrivals, options.margin)
    if not arrivals.rows:
        counts = ", ".join(f"{label} {count}" for label, count in coco.counts().items())
        raise DataError(
            f"none of the {len(coco.crops)} images that {source} annotates is in {folder};"
            f" its {sum(coco.counts().values())} usable annotations: {counts}",
            "name the folder of the images with --images",
        )


def _crops(pixels: Pixels, name: str, coco: Coco, arrivals: Arrivals, margin: float) -> None:
    for crop in coco.crops[name]:
        piece = cut(pixels, crop.box, coco.sizes[name], margin)
        if piece is None:
            arrivals.skipped["its box does not fit its image"] += 1
            continue
        filename = f"{PurePosixPath(name).stem}_{crop.annotation}.jpg"
        out = io.BytesIO()
        Image.fromarray(piece).save(out, "JPEG", quality=95, subsampling=0)
        arrivals.place(crop.label, filename, name).write_bytes(out.getvalue())


def _inside(folder: Path, filename: str) -> Path | None:
    """Return the file, unless it is missing or its name leads out of the folder."""
    path = folder / filename
    inside = path.resolve().is_relative_to(folder.resolve())
    return path if inside and path.is_file() else None


def _test(folder: Path, truth: Path | None, draft: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "name the folder of the test images")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if not files:
        raise DataError(f"{folder} holds no file", "name the flat folder of the test images")
    (draft / "test").mkdir()
    for file in files:
        shutil.copyfile(file, draft / "test" / file.name)
    if truth is None:
        return {"images": len(files)}
    known = {PurePosixPath(row.filename).name: row for row in read_rows(truth)}
    rows = [Row(f.name, known[f.name].label) for f in files if f.name in known]
    pairs = [(row.filename, row.label) for row in rows]
    write_csv(draft / "test_truth.csv", ("filename", "class"), pairs)
    return {"images": len(files), "without_truth": len(files) - len(rows)}


def _swap(draft: Path, into: Path, test: bool) -> None:
    """Move the drafted pieces in; if one cannot be moved, put back what was there."""
    into.mkdir(exist_ok=True)
    old = draft / "old"
    old.mkdir()
    moved: list[str] = []
    try:
        for piece in PIECES:
            if piece.startswith("test") and not test:
                continue
            moved.append(piece)
            if (into / piece).exists():
                (into / piece).rename(old / piece)
            if (draft / piece).exists():
                (draft / piece).rename(into / piece)
    except OSError:
        for piece in moved:
            if (old / piece).exists():
                if (into / piece).exists():
                    (into / piece).rename(draft / piece)
                (old / piece).rename(into / piece)
        raise
