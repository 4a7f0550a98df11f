"""Checks, splits and packs the images of data/: the prepare stage.

`prepare` reads data/ and changes nothing in it; its outputs depend on nothing but the files'
content and names, the parameters and the seed. Measured by `bench/data.py`.
"""

import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.data.faults import Verdict, judge
from weighin.data.listing import class_of, list_images
from weighin.data.near import Pairs, close_pairs, components
from weighin.data.pack import COLUMNS, array_path, write_array, write_table
from weighin.data.scan import Records, Scan, scan
from weighin.data.splits import SPLITS, assign, unit_key
from weighin.errors import DataError
from weighin.files import write_json
from weighin.images import Size
from weighin.params import Prepare

Report = dict[str, Any]
SHOWN = 200  # faults and pairs that report.json lists of each kind; faults.csv has all


@dataclass(frozen=True)
class Images:
    """The images that stay, in the order of their names."""

    names: list[str]
    places: npt.NDArray[np.int64]  # (N,) rows of the drafts
    records: Records  # (N,)
    groups: list[str]
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]  # (N,)


def prepare(source: Path, out: Path, params: Prepare, seed: int, workers: int) -> Report:
    """Pack `source`/train into the folder `out`, whole or not at all, and return its report.

    Writes the pack (see `weighin.data.pack`), `report.json`, `faults.csv` (every fault, its file
    and what was done) and the pictures of `weighin.data.sheets`.

    Raises:
        DataError: no images, fewer than two classes, or faults whose policy is "fail".
    """
    root = source / "train"
    listing = list_images(root)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        draft = Path(name) / "pack"
        draft.mkdir()
        rows = tuple(Path(name) / f"{h}x{w}.rows" for h, w in params.sizes)
        job = Scan(
            root.absolute(),
            rows,
            params.sizes,
            params.turn_tall,
            params.faults.max_aspect,
            params.near_bits >= 0,
        )
        records = scan(listing.names, job, workers)
        verdict = judge(listing.names, listing.faults, records, params.faults)
        images = _kept(listing.names, records, verdict, _groups(source, params.group))
        pairs = close_pairs(images.records["hash"], params.near_bits)
        validates = _split(images, pairs, params.validation, seed)
        _write_pack(draft, images, validates, rows, params.sizes)
        report = _report(images, validates, verdict, pairs, len(listing.names))
        write_json(draft / "report.json", report)
        write_table(draft / "faults.csv", verdict.rows, ("fault", "name", "done", "detail"))
        shutil.rmtree(out, ignore_errors=True)
        draft.rename(out)
    return report


def _groups(source: Path, kind: str) -> dict[str, str] | str:
    if kind != "column":
        return kind
    path = source / "train.csv"
    if not path.exists():
        mend = "import the data with a CSV that has a group column, or set prepare.group: none"
        raise DataError(f"prepare.group is column, but {path} does not exist", mend)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"filename", "group"} <= set(reader.fieldnames or ()):
            mend = "add the column, or set prepare.group: none in params.yaml"
            raise DataError(f"{path} has no columns filename and group", mend)
        return {row["filename"]: row["group"] or "" for row in reader}


def _group_of(name: str, groups: dict[str, str] | str) -> str:
    if isinstance(groups, dict):
        return groups.get(name, "")
    parts = name.split("/")
    return parts[1] if groups == "folder" and len(parts) > 2 else ""


def _kept(
    names: list[str], records: Records, verdict: Verdict, groups: dict[str, str] | str
) -> Images:
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


def _split(images: Images, pairs: Pairs, validation: float, seed: int) -> npt.NDArray[np.bool_]:
    keys = [
        unit_key(sha.decode(), group)
        for sha, group in zip(images.records["sha256"].tolist(), images.groups, strict=True)
    ]
    first: dict[str, int] = {}
    ties = [(first.setdefault(key, place), place) for place, key in enumerate(keys)]
    linked = np.array([tie for tie in ties if tie[0] != tie[1]], np.int64).reshape(-1, 2)
    together = components(len(keys), np.concatenate([pairs, linked]))
    return assign(keys, together, images.labels, validation, seed)


def _write_pack(
    out: Path,
    images: Images,
    validates: npt.NDArray[np.bool_],
    rows: tuple[Path, ...],
    sizes: tuple[Size, ...],
) -> None:
    for split, flag in zip(SPLITS, (False, True), strict=True):
        mine = images.places[validates == flag]
        for path, (height, width) in zip(rows, sizes, strict=True):
            shape = (len(mine), height, width, 3)
            pieces = _rows(path, mine, height * width * 3)
            write_array(array_path(out, split, (height, width)), pieces, shape)
    write_json(out / "classes.json", list(images.classes))
    write_table(out / "images.csv", _table(images, validates), COLUMNS)


def _rows(path: Path, places: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield rows of a draft; plain reads, since pages of a memory map count as memory in use."""
    with path.open("rb") as file:
        for place in places.tolist():
            file.seek(place * size)
            yield np.frombuffer(file.read(size), np.uint8)


def _table(images: Images, validates: npt.NDArray[np.bool_]) -> Iterator[tuple[object, ...]]:
    for split, flag in zip(SPLITS, (False, True), strict=True):
        for row, place in enumerate(np.flatnonzero(validates == flag).tolist()):
            label = images.classes[images.labels[place]]
            sha = images.records["sha256"][place].decode()
            yield split, row, label, images.names[place], images.groups[place], sha


def _report(
    images: Images, validates: npt.NDArray[np.bool_], verdict: Verdict, pairs: Pairs, files: int
) -> Report:
    counts = np.bincount(images.labels, minlength=len(images.classes))
    listed: Counter[str] = Counter()
    faults = []
    for fault, name, done, detail in verdict.rows:
        listed[fault] += 1
        if listed[fault] <= SHOWN:
            faults.append({"fault": fault, "name": name, "done": done, "detail": detail})
    return {
        "files": files,
        "images": len(images.names),
        "classes": dict(zip(images.classes, counts.tolist(), strict=True)),
        "imbalance": round(float(counts.max() / counts.min()), 4),
        "splits": {
            split: dict(
                zip(
                    images.classes,
                    np.bincount(
                        images.labels[validates == flag], minlength=len(images.classes)
                    ).tolist(),
                    strict=True,
                )
            )
            for split, flag in zip(SPLITS, (False, True), strict=True)
        },
        "fault_counts": dict(sorted(listed.items())),
        "faults": faults,
        "near_duplicates": {
            "pairs": len(pairs),
            "shown": [[images.names[a], images.names[b]] for a, b in pairs[:SHOWN].tolist()],
        },
    }
