"""Brings a data set in as data/, whole or not at all, and replaces nothing but an import.

    data/train/<Class>/...      the labelled images
    data/train.csv              filename (below data/train), class, group; split, where one is given
    data/test/                  the test images (when there are any)
    data/test_truth.csv         filename, class (when their truth is known)
    data/import.json            what came in and what did not, and the hashes of the rest

The source is a tree with one folder a class, a folder of shards (`shards.py`), a CSV of file names
and classes, or the annotations of a tool: a COCO file, an export of Label Studio or of CVAT.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn, TypeVar

from weighin.data.annotations import Coco, left_out, read_cvat, read_label_studio, read_mapping
from weighin.data.coco import UNFIT, read_coco, read_json, stored_pixels, write_crops
from weighin.data.import_index import (
    UNMAPPED,
    ImportIndex,
    barred,
    checked_class,
    choose_test,
    copies_in_validation,
    keep_test,
    remedy,
    told_copies,
    write_test,
)
from weighin.data.layout import (
    NO_IMAGE,
    Layout,
    Placed,
    read_layout,
    split_names,
    split_word,
)
from weighin.data.shards import read_shards, shards_of, unpacking
from weighin.data.versioning import DRAWN, IMPORTED, aside, link, snapshot, write_mark
from weighin.errors import DataError
from weighin.file_names import (
    DROPPINGS,
    TEST,
    TRAIN,
    VALIDATION,
    Matches,
    class_form,
    find_folder,
    match,
    match_folder,
)
from weighin.files import NEW, recover_folder, replace_folder
from weighin.label_csv import Columns, Row, read_matched
from weighin.parallel import cores
from weighin.text_table import JSON_LINES

T = TypeVar("T", Row, Placed)
ANNOTATIONS = ("coco", "label-studio", "cvat")
KINDS = {
    "folder": "a folder of class folders",
    "shards": "a folder of shards",
    "csv": "a table",
    "coco": "a COCO file",
    "label-studio": "an export of Label Studio",
    "cvat": "an export of CVAT",
}
# option: the kinds of source that it says something of
ABOUT = {
    "--images": ("csv", *ANNOTATIONS),
    "--filename-column": ("csv",),
    "--class-column": ("csv", "label-studio"),
    "--group-column": ("csv", "coco"),
    "--split-column": ("csv",),
    "--classes": ("folder",),
    "--mapping": ("folder", "csv", *ANNOTATIONS),
    "--margin": ANNOTATIONS,
    "--boxes": ANNOTATIONS,
}


@dataclass(frozen=True)
class Options:
    """How a source is read; None leaves it to a guess."""

    images: Path | None = None  # the folder that a CSV or COCO file speaks of
    # of a CSV; of a split "none" the source's own is not taken, whatever says it
    columns: Columns = field(default_factory=Columns)
    classes: Literal["outer", "inner"] | None = None  # which folders of a tree are classes
    mapping: Path | None = None  # category to class
    margin: float = 0.1  # around a COCO box, as a share of its sides
    boxes: Literal["stored", "upright"] | None = None  # the pixels that COCO boxes were drawn on
    validation: Path | None = None  # a tree of images to validate on
    test: Path | None = None  # a folder of test images
    truth: Path | None = None  # their classes
    keep_test: bool = True  # of the import before, where this one brings none


def import_data(
    source: Path, into: Path, options: Options | None = None, force: bool = False
) -> dict[str, Any]:
    """Replace the folder `into` by the data set `source` and return what came in.

    Only what an import or a drawing wrote, or what DVC keeps, is replaced; `force` moves anything
    else to <into>.before-N. What an earlier import left there as its test stays, unless there is
    another now, or its truth has other classes; a test that was drawn with the default set does
    not.

    Raises:
        DataError: the source is none of the three kinds, or nothing in it can be used; it and
            `into` hold each other; `into` holds what is kept nowhere else.
        OutputError: the disk is full or the folder cannot be written; `into` is as it was.
    """
    options = options or Options()
    recover_folder(into)
    _check_places(source, into, options)
    beside = aside(into, force)
    before = snapshot(into)
    with replace_folder(into, beside) as draft:
        new = draft / NEW
        index = ImportIndex(new / "train")
        kind = _read(source, into, index, options)
        index.drop_no_groups()
        index.tie_copies()
        index.write_table(new / "train.csv")
        if options.test is not None:
            choose_test(index, options.test)
        test = {}
        if index.test:
            test = {"test": write_test(index, options.truth, new)}
        elif options.keep_test and into.is_dir() and not (into / DRAWN).exists():
            copy = shutil.copyfile if beside else link
            index.notes += keep_test(into, new, copy, {row.label for row in index.rows})
        index.notes += [*copies_in_validation(index), *told_copies(new), *index.refused_later()]
        report = {"kind": kind, **index.report(), **test}
        write_mark(new, IMPORTED, report)
        if snapshot(into) != before:
            raise DataError(f"{into} was changed during the import", "run the same command again")
    if beside:
        report["notes"].append(f"what {into} was is in {beside}")
    return report


def _check_places(source: Path, into: Path, options: Options) -> None:
    """Refuse a target or folders that are none, and sources inside the target or around it."""
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        what = f"a link to {into.readlink()}" if into.is_symlink() else "a file"
        raise DataError(f"{into} is {what}", f"move {into} away; an import makes a folder")
    if not source.exists():
        raise DataError(f"{source} does not exist", "name a folder, a CSV file or a COCO file")
    target = into.resolve()
    given = (source, options.images, options.mapping, options.validation, options.test)
    for path in (*given, options.truth):
        if path is None:
            continue
        real = path.resolve()
        if real.is_relative_to(target):
            fix = f"move it out of {into} first; what lies there goes when the import is done"
            raise DataError(f"{path} lies in {into}, which an import replaces", fix)
        if path != options.images and real.is_dir() and target.is_relative_to(real):
            fix = "name the folder of the images alone"
            raise DataError(f"{path} holds {into}, which an import replaces", fix)
    for path, what in (
        (options.images, "images"),
        (options.validation, "images to validate on"),
        (options.test, "test images"),
    ):
        if path is not None and not path.is_dir():
            fix = unpacking(path) or f"name the folder of the {what}"
            raise DataError(f"{path} is not a folder", fix)
    if options.truth is not None and options.test is None:
        raise DataError(f"{options.truth} is the truth of no test", "name its images with --test")


# --- the kinds of source


def _read(source: Path, into: Path, index: ImportIndex, options: Options) -> str:
    facts = read_json(source) if source.suffix.lower() == ".json" else None
    kind = _kind(source, facts)
    _check_options(source, kind, options)
    if kind == "folder":
        _tree(source, index, options)
    elif kind == "shards":
        _shards(source, index, options)
    elif kind == "csv":
        _table(source, into, index, options)
    else:
        coco = _annotated(source, kind, facts, options)
        _annotations(source, kind, coco, into, index, options)
    if options.validation is not None:
        _validation(options.validation, index, options.classes or "outer")
    index.check_classes()
    return kind


def _kind(source: Path, facts: Any) -> str:
    """Return which of `KINDS` a source is; `facts` is what a JSON file holds."""
    suffix = source.suffix.lower()
    if source.is_dir():
        return "shards" if shards_of(source) else "folder"
    if suffix in (".csv", ".tsv", ".txt", *JSON_LINES):
        return "csv"
    if suffix == ".json":
        return "label-studio" if isinstance(facts, list) else "coco"
    if suffix == ".xml":
        return "cvat"
    if fix := unpacking(source):
        fix += "; of a shard, name its folder" if suffix == ".tar" else ""
        raise DataError(f"{source} is an archive, not a folder", fix)
    if suffix in (".xlsx", ".xls", ".ods", ".numbers"):
        fix = "save it as CSV in UTF-8, with the columns filename,class"
        raise DataError(f"{source} is the workbook of a spreadsheet", fix)
    raise DataError(f"{source} is no folder, .csv, .json, .jsonl or .xml", "name one of these")


def _check_options(source: Path, kind: str, options: Options) -> None:
    """Refuse an option that says nothing of this kind of source: it would be ignored."""
    columns = options.columns
    given = (
        options.images,
        columns.filename,
        columns.label,
        columns.group,
        columns.split if columns.split != "none" else None,
        options.classes if options.validation is None else None,  # which is a tree too
        options.mapping,
        options.margin if options.margin != Options.margin else None,
        options.boxes,
    )
    for (option, kinds), value in zip(ABOUT.items(), given, strict=True):
        if value is not None and kind not in kinds:
            about = " or ".join(KINDS[one] for one in kinds)
            raise DataError(
                f"{option} is for {about}; {source} is {KINDS[kind]}", f"leave {option} out"
            )


def _mapped(items: list[T], mapping: Path | None, index: ImportIndex) -> list[T]:
    """Return images in the classes of a mapping; those of a category without one are left out."""
    if mapping is None:
        return items
    labels = {item.label for item in items if item.label}
    index.words = read_mapping(mapping, {label: label for label in labels})
    kept = []
    for item in items:
        label = index.words.get(item.label, "")
        if label or not item.label:
            kept.append(replace(item, label=label))
        else:
            name = item.filename if isinstance(item, Row) else item.name
            index.skip(UNMAPPED, f'{name}, "{item.label}"')
    return kept


def _tree(source: Path, index: ImportIndex, options: Options) -> None:
    names = index.files(source)
    layout = read_layout(names, source, options.classes)
    index.heed(layout)
    files = _mapped(layout.files, options.mapping, index)
    given = VALIDATION in {placed.split for placed in files}
    if given and options.columns.split == "none":
        given = False
        index.notes.append(
            "its validation split is not taken (--split-column none): prepare chooses one"
        )
    for placed in files:
        if placed.split == TEST:
            index.test.append((source / placed.name, placed.rest, placed.label))
        else:
            _place(source, placed, placed.split or TRAIN if given else "", index)
    if not index.rows:
        left = left_out(index.skipped)
        fixes = (remedy(source, name, why) for why, name in index.such_as.items())
        fix = "name a folder that holds one folder a class, or a CSV of file names and classes"
        raise DataError(
            f"{source} holds no image in a class folder{left}", next(filter(None, fixes), fix)
        )
    index.notes += [f"the folder {name} holds no image" for name in _empty(source, layout, names)]
    real = source.resolve()
    readable = split_word(real.name) == TRAIN and os.access(real.parent, os.R_OK)
    for path in sorted(real.parent.iterdir()) if readable else ():
        word = split_word(path.name)
        option = {VALIDATION: "--validation", TEST: "--test"}.get(word)
        if option and path.is_dir() and getattr(options, word) is None and not given:
            index.notes.append(f"{path.name}/ lies beside it and is not taken; {option} names it")


def _shards(source: Path, index: ImportIndex, options: Options) -> None:
    """Copy shards as they are; their samples say their classes, groups and splits."""
    if options.validation is not None:
        fix = "say it in the samples' .json (split), or make shards of both"
        raise DataError(f"{source} holds shards, beside which {options.validation} cannot lie", fix)
    shards = shards_of(source)
    called = split_names([path.stem for path in shards])  # train-000.tar, val-000.tar
    called = called if TRAIN in called.values() else {}
    whole = options.columns.split == "none"
    samples = [
        sample._replace(
            split="" if whole else sample.split or called.get(Path(sample.member.shard).stem, "")
        )
        for sample in read_shards(source, cores())
    ]
    splits = {sample.split for sample in samples}
    if splits - {"", TRAIN, VALIDATION}:
        word = min(splits - {"", TRAIN, VALIDATION})
        fix = (
            "write train or validation, and name the folder of the test images with --test; or "
            "pass --split-column none"
        )
        raise DataError(f'{source}: samples are of the split "{word}"', fix)
    given = VALIDATION in splits
    for name, label, _, group, split in samples:
        index.rows.append(Row(name, label, group, (split or TRAIN) if given else ""))
    index.folder.mkdir(parents=True)
    for path in shards:
        shutil.copyfile(path, index.folder / path.name)
    for path in sorted(source.iterdir()):
        if path not in shards and path.name[0] != ".":
            index.skip("it lies beside the shards", path.name)


def _empty(source: Path, layout: Layout, names: Sequence[str]) -> list[str]:
    """Return the folders beside those of classes in which no image of the files `names` lies."""
    labelled = [placed for placed in layout.files if placed.label]
    tops = {placed.name.removesuffix(placed.rest).rstrip("/") for placed in labelled}
    parents = {top.rpartition("/")[0] for top in tops}
    beside = {
        path.relative_to(source).as_posix()
        for parent in parents
        for path in (source / parent).iterdir()
        if path.is_dir()
        and not path.is_symlink()
        and path.name[0] != "."
        and not DROPPINGS.fullmatch(path.name.lower())
    }
    direct = {name.rpartition("/")[0] for name in names if not NO_IMAGE.search(name)}
    held = direct | {str(above) for folder in direct for above in PurePosixPath(folder).parents}
    return sorted(beside - held)


def _place(source: Path, placed: Placed, split: str, index: ImportIndex) -> None:
    """Copy a file of a tree under its own name, or another if it has been given."""
    name = f"{checked_class(placed.label)}/{placed.rest}"
    if name in index.taken:
        row = index.named(placed.label, placed.name, placed.group, split)
    else:
        row = Row(name, placed.label, placed.group, split)
        index.taken |= {name, name.casefold()}
    index.copy(source, placed.name, row)


def _validation(folder: Path, index: ImportIndex, classes: Literal["outer", "inner"]) -> None:
    """Take a tree as the validation split: all that came in before it is to train on."""
    layout = read_layout(index.files(folder), folder, classes)
    index.heed(layout)
    if not layout.files:
        fix = "name a folder that holds one folder a class"
        raise DataError(f"{folder} holds no image in a class folder", fix)
    spelled = {class_form(row.label): row.label for row in index.rows}
    index.rows = [Row(r.filename, r.label, r.group, r.split or TRAIN) for r in index.rows]
    for placed in layout.files:
        label = spelled.get(class_form(placed.label)) or index.words.get(placed.label)
        if index.words and not label:
            index.skip(UNMAPPED, f'{placed.name}, "{placed.label}"')
            continue
        label = label or placed.label
        own = Placed(placed.name, VALIDATION, label, placed.group, placed.rest)
        _place(folder, own, VALIDATION, index)


def _table(source: Path, into: Path, index: ImportIndex, options: Options) -> None:
    whole = options.columns.split == "none"
    columns = replace(options.columns, split=None) if whole else options.columns
    labels, matches = read_matched(source, lambda names: _meant(source, names, options), columns)
    index.notes += labels.notes
    for reason, many in labels.left_out.items():
        index.skip(f"in the table: {reason}", source.name, many)
    rows = [replace(row, split="") for row in labels.rows] if whole else labels.rows
    rows = _mapped(rows, options.mapping, index) if rows else []
    if not rows:
        left = "".join(f"; {many:,} left out: {why}" for why, many in labels.left_out.items())
        raise DataError(
            f"{source} names no image with a class{left}", "write a row for each image into it"
        )
    splits = {row.split for row in rows}
    _check_splits(f"the split column of {source}", labels.no_splits, splits, index)
    folder = _checked(source, matches, into, index)
    files = matches.files
    listed: dict[tuple[str, str], Row] = {}
    for row in rows:
        found = files.get(row.filename)
        if found is None:
            index.missing.append(row.filename)
        elif (first := listed.setdefault((found, row.label), row)) is not row:
            _check_again(source, first, row)
            index.skip("in the table: listed twice", row.filename)
        elif row.split == TEST:
            index.test.append((folder / found, found, row.label))
        else:
            split = (row.split or TRAIN) if VALIDATION in splits else ""
            index.copy(folder, found, index.named(row.label, found, row.group, split))
    if not index.rows:
        raise DataError(
            f"none of the {len(rows):,} files that {source} names is in {folder}, such as "
            f"{next(iter(index.missing), '')}{labels.told}",
            "name the folder of the images with --images, or the column that holds their names "
            "with --filename-column",
        )


def _check_again(source: Path, first: Row, again: Row) -> None:
    """Refuse a file of a class that is listed again, in another spelling, in another split."""
    if first.split != again.split:
        one, two = (f'"{row.split or "no split"}" ({row.filename})' for row in (first, again))
        raise DataError(
            f"{source} lists one file twice, as {one} and as {two}",
            f"remove the wrong row from {source}",
        )


def _check_splits(
    where: str, no_splits: Counter[str], splits: set[str], index: ImportIndex
) -> None:
    """Refuse splits that are understood in part: nothing may be trained on by mistake."""
    if no_splits and not splits - {""}:
        words = ", ".join(sorted(no_splits)[:3])
        index.notes.append(f"the split column names no split ({words}), and is not used")
        return
    fix = "write train, validation or test in it, or pass --split-column none"
    for word, many in no_splits.most_common(1):
        raise DataError(f'{where} says "{word}" for {many:,} rows, which is no split', fix)
    if splits and not splits & {TRAIN, ""}:
        raise DataError(f"{where} names no row to train on", fix)


def _meant(source: Path, names: list[str], options: Options) -> Matches:
    """Return which files the names of a table or COCO file mean."""
    return match_folder(names, options.images or find_folder(source, names))


def _checked(source: Path, matches: Matches, into: Path, index: ImportIndex) -> Path:
    """Return the folder that a table or COCO file speaks of; note what its names mean there."""
    folder = Path(matches.folder)
    matches.refuse_ambiguous(source)
    _tell_barred(source, folder, matches, index)
    target = into.resolve()
    for name, found in matches.found.items():
        if (folder / found).resolve().is_relative_to(target):
            fix = f"move the images out of {into} first, or name their folder with --images"
            raise DataError(f"{name} was found in {into}, which an import replaces", fix)
    if matches.tolerances:
        index.notes.append(matches.words())
    return folder


def _tell_barred(source: Path, folder: Path, matches: Matches, index: ImportIndex) -> None:
    """Say of files that are there why they are not taken; refuse a source that names no other."""
    closed = barred(folder) if matches.missing else {}
    near = match(matches.missing, closed, folder).files
    for name in list(near.values())[:1]:
        fix = remedy(folder, name, closed[name]) or "name the folder of the images with --images"
        such = f"can be taken from {folder}, such as {name}: {closed[name]}"
        if not matches.found:
            many = len(matches.missing)
            raise DataError(f"none of the {many:,} files that {source} names {such}", fix)
        index.notes.append(f"{len(near):,} of the missing are there, but none {such}; {fix}")


def _annotated(source: Path, kind: str, facts: Any, options: Options) -> Coco:
    if kind == "cvat":
        return read_cvat(source, options.mapping)
    if kind == "label-studio":
        return read_label_studio(source, facts, options.mapping, options.columns.label)
    return read_coco(source, facts, options.mapping, options.columns.group)


def _annotations(
    source: Path, kind: str, coco: Coco, into: Path, index: ImportIndex, options: Options
) -> None:
    coco.settle()
    if options.columns.split != "none":
        _check_splits(f"the split of images in {source}", *coco.take_splits(), index)
    for reason, many in coco.skipped.items():
        index.skip(reason, coco.such_as[reason], many)
    if not coco.crops:
        fix = "annotate images in it, or export it again"
        if kind == "label-studio":
            fix += "; --class-column names the field of its classes"
        raise DataError(f"{source} annotates nothing that can be used; {coco.words()}", fix)
    matches = _meant(source, list(coco.crops), options)
    folder = _checked(source, matches, into, index)
    places = matches.files
    index.missing += [name for name in coco.crops if name not in places]
    files = {name: folder / found for name, found in places.items()}
    turned = stored_pixels(coco, files, options.boxes, index)
    for name, path in files.items():
        for crop in coco.crops[name]:
            found = places[name]
            if crop.split == TEST:
                index.test.append((path, found, crop.label))
            elif crop.box is None:
                index.copy(folder, found, index.named(crop.label, found, crop.group, crop.split))
        if boxed := [crop for crop in coco.crops[name] if crop.box is not None]:
            write_crops(path, name, boxed, turned.get(name), index, options.margin)
    if not index.rows:
        _refuse_unusable(source, folder, coco, files, index)


def _refuse_unusable(
    source: Path, folder: Path, coco: Coco, files: dict[str, Path], index: ImportIndex
) -> NoReturn:
    """Say why nothing that `source` annotates could be brought in: no files, or what is in them."""
    fix = "name the folder of the images with --images"
    left = left_out(index.skipped)
    name = next(iter(files or coco.crops))
    if files and UNFIT in index.skipped:
        tall, wide = coco.crops[name][0].size
        left += f"; {name} was annotated as {wide} x {tall} pixels (width x height)"
        fix = "give the pictures that were annotated, or an export whose sizes are these pictures'"
    elif files:
        fix = "make these pictures readable, or export the annotations anew"
    raise DataError(
        f"none of the {len(coco.crops):,} images that {source} annotates can be used, such as "
        f"{name} in {folder}; {coco.words(with_skipped=False)}{left}",
        fix,
    )
