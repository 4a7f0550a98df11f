"""Which images are kept: each fault is dropped, kept or fails the stage, as params.yaml says."""

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.data.listing import Listing, class_of
from weighin.data.near_duplicates import close_pairs, near_an_earlier
from weighin.errors import DataError
from weighin.file_names import TRAIN, VALIDATION, parts_of
from weighin.image_formats import MAX_HEAD, kind_of
from weighin.label_csv import split_of
from weighin.params import Faults
from weighin.text_table import column_key, read_table

# A record's `marks` are bits in this order
UNREADABLE = ("unreadable", "zero-byte", "not-an-image", "truncated", "bomb")
UNUSUAL = (
    "damaged",
    "animated",
    "cmyk",
    "16-bit",
    "range-guessed",
    "palette-transparency",
    "exif-rotated",
    "extreme-aspect",
)
MARKS = UNREADABLE + UNUSUAL
RECORD = np.dtype([("sha256", "S32"), ("hash", "u8"), ("marks", "u4")])

Records = npt.NDArray[np.void]
Found = tuple[str, str, str]  # fault, name, detail
Row = tuple[str, str, str, str]  # fault, name, what was done, detail
DONE = {"drop": "dropped", "keep": "kept", "fail": "failed"}
# fault: the policy that decides on it
POLICY_OF = {
    **dict.fromkeys(UNREADABLE, "unreadable"),
    "damaged": "damaged",
    "animated": "animated",
    "cmyk": "cmyk",
    "16-bit": "sixteen_bit",
    "range-guessed": "sixteen_bit",
    "palette-transparency": "transparent",
    "exif-rotated": "rotated",
    "extreme-aspect": "extreme_aspect",
    "name-collision": "name_collision",
    "escaping-link": "escaping_link",
    "no-class": "escaping_link",
    "duplicate": "duplicate",
    "contradiction": "contradiction",
    "near-duplicate": "near_duplicate",
    "small-class": "small_class",
}


def hexadecimal(sha256: bytes) -> str:
    """Return a record's SHA-256 as text; NumPy's fixed-width bytes drop the zeros at their end."""
    return sha256.ljust(32, b"\0").hex()


def mark(*faults: str) -> int:
    """Return the bits of faults."""
    return sum(1 << MARKS.index(fault) for fault in faults)


@dataclass
class Verdict:
    """Which images stay, and one row for every fault found."""

    keep: npt.NDArray[np.bool_]  # (N,)
    rows: list[Row] = field(default_factory=list)


def judge(listing: Listing, records: Records, near_bits: int, policy: Faults) -> Verdict:
    """Return what stays of a listing after every policy.

    What is no image is looked at again, to be named. Duplicates, contradictions and near-duplicates
    are looked for among what is readable and not yet dropped, small classes last of all.

    Raises:
        DataError: faults whose policy is "fail", named.
    """
    names = listing.names
    verdict = Verdict(np.ones(len(names), bool))
    _apply(verdict, listing.faults, names, policy)
    _apply(verdict, _marked(listing, records), names, policy)
    _apply(verdict, _same_bytes(names, records, verdict.keep), names, policy)
    _apply(verdict, _alike(names, records, verdict.keep, near_bits), names, policy)
    _apply(verdict, list(_small_classes(names, verdict, policy.min_per_class)), names, policy)
    verdict.rows.sort()
    failed = [row for row in verdict.rows if row[2] == "failed"]
    if failed:
        _fail(failed)
    return verdict


def _apply(verdict: Verdict, faults: Iterable[Found], names: list[str], policy: Faults) -> None:
    for fault, name, detail in faults:
        done = DONE[getattr(policy, POLICY_OF[fault])]
        place = bisect.bisect_left(names, name)
        listed = names[place : place + 1] == [name]
        if not listed and done == "kept":  # what is no image cannot be kept
            done = "dropped"
        if listed and done == "dropped":
            verdict.keep[place] = False
        verdict.rows.append((fault, name, done, detail))


def _fail(failed: list[Row]) -> None:
    shown = "\n".join(
        f"{fault}: {name}{detail and f' ({detail})'}" for fault, name, _, detail in failed[:10]
    )
    more = f"\nand {len(failed) - 10:,} more" if len(failed) > 10 else ""
    policies = ", ".join(sorted({f"prepare.faults.{POLICY_OF[row[0]]}" for row in failed}))
    raise DataError(
        f"{len(failed):,} fault{'s' * (len(failed) > 1)} must not pass:\n{shown}{more}",
        f"fix or remove the files, or change {policies} in params.yaml",
    )


def _marked(listing: Listing, records: Records) -> Iterator[Found]:
    marks = records["marks"]
    for place in np.flatnonzero(marks):
        for bit, fault in enumerate(MARKS):
            if int(marks[place]) >> bit & 1:
                name, no_image = listing.names[place], fault == "not-an-image"
                yield fault, name, kind_of(listing.read(name, MAX_HEAD)) if no_image else ""


def _same_bytes(names: list[str], records: Records, keep: npt.NDArray[np.bool_]) -> Iterator[Found]:
    """Yield contradictions (every image of them), and duplicates (all but the first name)."""
    places = np.flatnonzero(keep)
    order = places[np.argsort(records["sha256"][places], kind="stable")]
    sha = records["sha256"][order]
    ends = np.append(np.flatnonzero(sha[1:] != sha[:-1]) + 1, len(sha))
    counts = np.diff(ends, prepend=0)
    for end, count in zip(ends[counts > 1], counts[counts > 1], strict=True):
        same = [names[place] for place in order[end - count : end]]
        if len({class_of(name) for name in same}) > 1:
            for name in same:
                other = next(o for o in same if class_of(o) != class_of(name))
                yield "contradiction", name, other
        else:
            for name in same[1:]:
                yield "duplicate", name, same[0]


def _alike(
    names: list[str], records: Records, keep: npt.NDArray[np.bool_], bits: int
) -> Iterator[Found]:
    """Yield the images that look like an earlier one which is not among them itself."""
    places = np.flatnonzero(keep)
    places = places[np.unique(close_pairs(records["hash"][places], bits))]
    for place, other in near_an_earlier(records["hash"][places], bits).items():
        yield "near-duplicate", names[places[place]], names[places[other]]


def dropped(rows: Iterable[Row]) -> list[tuple[str, int, Row]]:
    """Return each fault that images were dropped for, how many, and the first of these rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row[2] == "dropped":
            found.setdefault(row[0], []).append(row)
    return [(fault, len(own), own[0]) for fault, own in sorted(found.items())]


def _small_classes(names: list[str], verdict: Verdict, least: int) -> Iterator[Found]:
    """Yield the images of small classes; a class of which nothing is left by its name alone."""
    counts = Counter(class_of(names[place]) for place in np.flatnonzero(verdict.keep))
    small = {label for label, count in counts.items() if count < least}
    for place in np.flatnonzero(verdict.keep) if small else ():
        label = class_of(names[place])
        if label in small:
            yield "small-class", names[place], f"{counts[label]} images in its class"
    if len(counts) < 2:  # then there is no data set, which is told in full
        return
    gone = Counter(label for label in map(class_of, names) if label not in counts)
    for label, files in sorted(gone.items()):
        rows = [row for row in verdict.rows if row[2] == "dropped" and class_of(row[1]) == label]
        why = ", ".join(f"{many:,} {fault}" for fault, many, _ in dropped(rows))
        both = (f", such as {row[1]} and {row[3]}" for row in rows if row[0] == "contradiction")
        why += min(both, default="")
        yield "small-class", label, f"none of its {files:,} files can be used: {why}"


@dataclass(frozen=True)
class Images:
    """The images that are kept, in the order of their names."""

    names: list[str]
    places: npt.NDArray[np.int64]  # (N,) rows of the drafts
    records: Records  # (N,)
    groups: list[str]
    guessed: list[bool]  # whether a group is only the sub-folder that the image lies in
    splits: list[str]  # train or validation where train.csv gives a split, else empty
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Given:
    """What data/train.csv says of images by name, and how `prepare.group` tells their groups."""

    kind: str  # none, folder or column
    groups: dict[str, str]
    splits: dict[str, str]
    notes: tuple[str, ...] = ()  # how the table was read, and what of it names no image

    def group(self, name: str) -> tuple[str, bool]:
        """Return an image's group, and whether it is only the first folder below its class."""
        parts = name.split("/")
        folder = parts[1] if len(parts) > 2 else ""
        group = {"folder": folder, "column": self.groups.get(name, "")}.get(self.kind, "")
        return group, group != "" and group == folder


def read_given(source: Path, kind: str, names: Sequence[str]) -> Given:
    """Return what tells the groups and the split of the images `names` of `source`/train.

    A folder is the first one below the class, and ties images of every class that has it; a column
    is `group` of train.csv, where `weighin import` wrote one. An empty group is none. The split is
    the column `split`, where the data came with one. A spreadsheet may have saved the table anew.

    Raises:
        DataError: train.csv has no such column, a split that is none, or nothing of these images.
    """
    path = source / "train.csv"
    if not path.exists():
        return Given(kind, {}, {})
    table = read_table(path, header=True)
    header = [column_key(title) for title in table.header]
    if kind == "column" and not {"filename", "group"} <= {*header}:
        fix = "add the column, or set prepare.group: none in params.yaml"
        raise DataError(f"{path} has no columns filename and group", fix)
    if "filename" not in header:
        problem = f"{path} has no column filename; it has {', '.join(table.header)}"
        raise DataError(problem, "name the column of its files so, or import the data again")
    listed, given = {*names}, {*table.values(header.index("filename"))}
    spelled = {} if given <= listed else {_plain(name): name for name in names}
    groups, splits, lost = dict[str, str](), dict[str, str](), list[str]()
    for line, row in zip(table.lines, table.rows, strict=True):
        said = dict(zip(header, row, strict=True))
        name, group, word = said["filename"], said.get("group", ""), said.get("split", "")
        split = split_of(word)
        file = name if name in listed else spelled.get(_plain(name), "")
        if word and split not in (TRAIN, VALIDATION):
            fix = f"write train or validation into the column split of {path}"
            raise DataError(f'{path}, line {line}: the split of {name} is "{word}"', fix)
        if splits.get(file, split) != split:
            problem = f"{path}, line {line}: {file} is of the {splits[file]} split above"
            raise DataError(problem, "remove the wrong row")
        if file:
            groups[file] = group
            splits |= {file: split} if split else {}
        elif group or split:
            lost.append(name)
    such = f"{source / 'train'}, such as {lost[0]}" if lost else ""
    if lost and not groups:
        fix = f"import the data again, or remove {path}: prepare then chooses a split"
        raise DataError(f"none of the {len(lost):,} files that {path} names is in {such}", fix)
    notes = [f"{path.name}: {note}" for note in table.notes]
    notes += [f"{path.name}: {len(lost):,} rows name no image of {such}"] if lost else []
    return Given(kind, groups, splits, tuple(notes))


def _plain(name: str) -> str:
    return "/".join(parts_of(name))


def selected(names: list[str], records: Records, verdict: Verdict, given: Given) -> Images:
    """Return what `verdict` keeps of `names`, in their order.

    Raises:
        DataError: fewer than two classes are left, or of one none in a split that train.csv gives.
    """
    places = np.flatnonzero(verdict.keep)
    kept = [names[place] for place in places]
    classes = tuple(sorted({class_of(name) for name in kept}))
    if len(classes) < 2:
        raise _too_few(len(names), len(kept), classes, verdict.rows)
    if given.splits:
        _refuse_emptied(names, kept, verdict.rows, given.splits)
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[class_of(name)] for name in kept], np.int64)
    groups = [given.group(name) for name in kept]
    if len({*groups}) == 1 and groups[0][1]:  # images/ in every class tells nothing apart
        groups = [("", False)] * len(kept)
    splits = [given.splits.get(name, "") for name in kept]
    return Images(
        *(kept, places, records[places]),
        *([group for group, _ in groups], [guess for _, guess in groups], splits),
        *(classes, labels),
    )


def _refuse_emptied(
    names: list[str], kept: list[str], rows: list[Row], splits: dict[str, str]
) -> None:
    """Refuse a class of which all images of a given split are dropped, though it has others."""
    before = Counter((class_of(name), splits.get(name, "")) for name in names)
    left = {(class_of(name), splits.get(name, "")) for name in kept}
    classes = {label for label, _ in left}
    for label, side in sorted(before.keys() - left):
        if label not in classes or not side:
            continue
        mine = (row for row in rows if class_of(row[1]) == label and splits.get(row[1]) == side)
        gone = dropped(mine)
        why = ", ".join(f"{many:,} {fault}" for fault, many, _ in gone)
        such = "".join(f", such as {r[1]}{f' ({r[3]})' if r[3] else ''}" for _, _, r in gone[:1])
        raise DataError(
            f"none of the {before[label, side]:,} images of class {label} that train.csv puts into "
            f"the {side} split can be used: {why}{such}",
            f"import other images of {label} for {side}, or import without a split of your own "
            "(name the training folder alone, or --split-column none): prepare then chooses one",
        )


def _too_few(files: int, kept: int, classes: tuple[str, ...], rows: list[Row]) -> DataError:
    """Return the error that says what became of the images of a data set without two classes."""
    why = "".join(
        f"\n{many:,} {fault}: such as {name}{', ' * bool(detail)}{detail}"
        for fault, many, (_, name, _, detail) in dropped(rows)
    )
    left = f"{kept:,} images" + (f" of one class, {classes[0]}," if classes else "")
    fix = "convert or replace these files, or relax prepare.faults in params.yaml, and "
    return DataError(
        f"of {files:,} files {left} can be used; two classes are needed{why}",
        f"{fix if why else ''}bring in at least two classes with `weighin import`",
    )
