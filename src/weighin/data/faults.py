"""Which images are kept: each fault is dropped, kept or fails the stage, as params.yaml says."""

import bisect
import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.data.listing import class_of
from weighin.data.near_duplicates import close_pairs, near_an_earlier
from weighin.data.scan import MARKS, UNREADABLE, Records
from weighin.errors import DataError
from weighin.params import Faults

Found = tuple[str, str, str]  # fault, name, detail
Row = tuple[str, str, str, str]  # fault, name, what was done, detail
Groups = dict[str, str] | str  # file name: group, or how a name tells its group
DONE = {"drop": "dropped", "keep": "kept", "fail": "failed"}
# fault: the policy that decides on it
POLICY_OF = {
    **dict.fromkeys(UNREADABLE, "unreadable"),
    "damaged": "damaged",
    "animated": "animated",
    "cmyk": "cmyk",
    "16-bit": "deep",
    "palette-transparency": "transparent",
    "exif-rotated": "rotated",
    "extreme-aspect": "extreme_aspect",
    "alike-names": "alike_names",
    "outside": "outside",
    "no-class": "outside",
    "duplicate": "duplicate",
    "contradiction": "contradiction",
    "near-duplicate": "near_duplicate",
    "small-class": "small_class",
}


@dataclass
class Verdict:
    """Which images stay, and one row for every fault found."""

    keep: npt.NDArray[np.bool_]  # (N,)
    rows: list[Row] = field(default_factory=list)


def judge(
    names: list[str], found: Iterable[Found], records: Records, near_bits: int, policy: Faults
) -> Verdict:
    """Return what stays of the sorted `names` after every policy; `found` are the listing's faults.

    Duplicates, contradictions and near-duplicates are looked for among what is readable and not
    yet dropped, small classes last of all.

    Raises:
        DataError: faults whose policy is "fail", named.
    """
    verdict = Verdict(np.ones(len(names), bool))
    _apply(verdict, found, names, policy)
    _apply(verdict, _marked(names, records), names, policy)
    _apply(verdict, _same_bytes(names, records, verdict.keep), names, policy)
    _apply(verdict, _alike(names, records, verdict.keep, near_bits), names, policy)
    _apply(verdict, _small_classes(names, verdict.keep, policy.min_per_class), names, policy)
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


def _marked(names: list[str], records: Records) -> Iterator[Found]:
    marks = records["marks"]
    for place in np.flatnonzero(marks):
        for bit, fault in enumerate(MARKS):
            if int(marks[place]) >> bit & 1:
                yield fault, names[place], ""


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


def _small_classes(names: list[str], keep: npt.NDArray[np.bool_], least: int) -> Iterator[Found]:
    counts = Counter(class_of(names[place]) for place in np.flatnonzero(keep))
    small = {label for label, count in counts.items() if count < least}
    for place in np.flatnonzero(keep) if small else ():
        label = class_of(names[place])
        if label in small:
            yield "small-class", names[place], f"{counts[label]} images in its class"


@dataclass(frozen=True)
class Images:
    """The images that are kept, in the order of their names."""

    names: list[str]
    places: npt.NDArray[np.int64]  # (N,) rows of the drafts
    records: Records  # (N,)
    groups: list[str]
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]  # (N,)


def read_groups(source: Path, kind: str) -> Groups:
    """Return what tells an image's group under `prepare.group`: none, folder or column.

    A folder is the first one below the class, and ties images of every class that has it; a column
    is `group` of data/train.csv, where `weighin import` wrote one. An empty group is none.

    Raises:
        DataError: data/train.csv has no such column.
    """
    path = source / "train.csv"
    if kind != "column" or not path.exists():
        return {} if kind == "column" else kind
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"filename", "group"} <= set(reader.fieldnames or ()):
            fix = "add the column, or set prepare.group: none in params.yaml"
            raise DataError(f"{path} has no columns filename and group", fix)
        return {row["filename"]: row["group"] or "" for row in reader}


def _group_of(name: str, groups: Groups) -> str:
    if isinstance(groups, dict):
        return groups.get(name, "")
    parts = name.split("/")
    return parts[1] if groups == "folder" and len(parts) > 2 else ""


def selected(names: list[str], records: Records, verdict: Verdict, groups: Groups) -> Images:
    """Return what `verdict` keeps of `names`, in their order.

    Raises:
        DataError: fewer than two classes are left.
    """
    places = np.flatnonzero(verdict.keep)
    kept = [names[place] for place in places]
    classes = tuple(sorted({class_of(name) for name in kept}))
    if len(classes) < 2:
        raise DataError(
            f"{len(kept)} usable images of {len(classes)} classes are left of {len(names)}",
            "bring in at least two classes with `weighin import`, or relax prepare.faults",
        )
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[class_of(name)] for name in kept], np.int64)
    own = [_group_of(name, groups) for name in kept]
    return Images(kept, places, records[places], own, classes, labels)
