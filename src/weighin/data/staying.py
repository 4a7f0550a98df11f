"""The images that stay: what every fault's policy left, with their classes and groups."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.data.faults import Verdict
from weighin.data.listing import class_of
from weighin.data.scan import Records
from weighin.errors import DataError

Groups = dict[str, str] | str  # file name: group, or how a name tells its group


@dataclass(frozen=True)
class Images:
    """The images that stay, in the order of their names."""

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


def staying(names: list[str], records: Records, verdict: Verdict, groups: Groups) -> Images:
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
