"""Checks, splits and packs the images of data/: the prepare stage.

`prepare` reads data/ and changes nothing in it; its outputs depend on nothing but the files'
content and names, the parameters and the seed. Measured by `bench/data.py`.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.data.contact_sheets import draw_pictures, suspicious
from weighin.data.faults import Images, Verdict, judge, read_given, selected
from weighin.data.near_duplicates import Pairs, close_pairs
from weighin.data.pack import COLUMNS, array_path, write_array, write_splits, write_table
from weighin.data.scan import CHUNK, Scan, hexadecimal, scan
from weighin.data.shards import open_images
from weighin.data.splits import SPLITS, Flags, Split, split_images
from weighin.files import NEW, replace_folder, write_json
from weighin.images import Pixels, Size
from weighin.parallel import workers as worker_pool
from weighin.params import Prepare
from weighin.progress import say

BLOCK = 2**20  # bytes of pixels moved at once
SHOWN = 200  # faults of each kind, and pairs, that report.json lists; faults.csv has every fault

Report = dict[str, Any]
Array = tuple[Size, int]  # how many times larger a side than the size are its images


def prepare(source: Path, out: Path, params: Prepare, seed: int, workers: int) -> Report:
    """Pack `source`/train into the folder `out`, whole or not at all, and return its report.

    Writes the pack (see `weighin.data.pack`), `report.json`, `faults.csv` (every fault, its file
    and what was done) and `pictures/` (a contact sheet a class, and the suspicious pairs).

    Raises:
        DataError: no images, fewer than two classes, or faults whose policy is "fail".
        OutputError: the disk is full or `out` cannot be written.
        WorkerError: a worker process went away.
    """
    given = read_given(source, params.group)
    listing = open_images(source / "train", workers)
    workers = min(workers, -(-len(listing.names) // CHUNK))
    with replace_folder(out) as draft, worker_pool(workers, "it read images") as pool:
        pack = draft / NEW
        arrays = _arrays(params)
        sizes = tuple((h * finer, w * finer) for (h, w), finer in arrays)
        rows = tuple(draft / f"{h}x{w}.{finer}.rows" for (h, w), finer in arrays)
        job = Scan(listing.root.absolute(), rows, sizes, params.turn_tall, params.faults.max_aspect)
        places = [listing.place(name) for name in listing.names]
        records = scan(places, job, pool, workers)
        verdict = judge(listing, records, params.near_bits, params.faults)
        images = selected(listing.names, records, verdict, given)
        del records  # 4 MB for 100,000 images
        pairs = close_pairs(images.records["hash"], params.near_bits)
        drawn = draw_pictures(listing, pack / "pictures", images, verdict, pairs, pool)
        split = split_images(images, pairs, params.validation, seed)
        _write_pack(pack, images, split, rows, arrays)
        report = summarize(images, split, verdict, pairs, len(listing.names))
        report["pictures"] = [picture.result() for picture in drawn]
        write_json(pack / "report.json", report)
        write_table(pack / "faults.csv", verdict.rows, ("fault", "name", "done", "detail"))
    for line in _told(verdict, report):
        say(f"prepare: {line}")
    return report


def _told(verdict: Verdict, report: Report) -> Iterator[str]:
    """Yield what to say of images that were dropped, and of splits that share what is alike."""
    first = {row[0]: row for row in reversed(verdict.rows) if row[2] == "dropped"}
    counts = Counter(row[0] for row in verdict.rows if row[2] == "dropped")
    for fault, many in sorted(counts.items()):
        name, detail = first[fault][1], first[fault][3]
        yield f"{many:,} dropped, {fault}: such as {name}{f' ({detail})' if detail else ''}"
    for way in report["gave_way"]:
        yield (
            f"class {way['class']}: its {way['guess']} lie in both splits, as one would be empty "
            "otherwise; its validation figures are too good for that"
        )
    across = report["near_duplicates"]["across_splits"]
    if report["split_is_given"] and across:
        yield f"{across:,} pairs of near-duplicates lie across the split that train.csv gives"
    if torn := report["groups_across_splits"]:
        yield (
            f"{len(torn):,} groups lie across the split that train.csv gives, such as {torn[0]}; "
            "validation figures are too good for that"
        )


def _arrays(params: Prepare) -> list[Array]:
    """Return what is packed: each size, and the larger images from which crops are cut."""
    return [(size, finer) for finer in sorted({1, params.supersample}) for size in params.sizes]


def _write_pack(
    out: Path,
    images: Images,
    split: Split,
    rows: tuple[Path, ...],
    arrays: list[Array],
) -> None:
    validates = split.validates
    for side, flag in zip(SPLITS, (False, True), strict=True):
        mine = images.places[validates == flag]
        for path, ((h, w), finer) in zip(rows, arrays, strict=True):
            size = (h * finer, w * finer)
            shape = (len(mine), *size, 3)
            write_array(array_path(out, side, (h, w), finer), _rows(path, mine, size), shape)
    write_json(out / "classes.json", list(images.classes))
    write_table(out / "images.csv", _table(images, validates), COLUMNS)
    write_splits(out, split.further[:, np.argsort(validates, kind="stable")])


def _rows(path: Path, places: npt.NDArray[np.int64], size: Size) -> Iterator[Pixels]:
    """Yield the rows `places`, in rising order, of a draft, a block at a time.

    Plain reads, since pages of a memory map count as memory in use.
    """
    row = size[0] * size[1] * 3
    step = max(1, BLOCK // row)
    with path.open("rb") as file:
        for start in range(0, int(places.max(initial=-1)) + 1, step):
            block = np.frombuffer(file.read(step * row), np.uint8).reshape(-1, row)
            first, last = np.searchsorted(places, [start, start + step])
            yield block[places[first:last] - start]


def _table(images: Images, validates: Flags) -> Iterator[tuple[object, ...]]:
    for side, flag in zip(SPLITS, (False, True), strict=True):
        for row, place in enumerate(np.flatnonzero(validates == flag)):
            label = images.classes[images.labels[place]]
            digest = hexadecimal(images.records["sha256"][place])
            yield side, row, label, images.names[place], images.groups[place], digest


def summarize(images: Images, split: Split, verdict: Verdict, pairs: Pairs, files: int) -> Report:
    """Return the facts of report.json; `files` is how many were looked at."""
    validates = split.validates
    counts = _by_class(images, np.ones(len(images.names), bool))
    listed: Counter[str] = Counter()
    faults = []
    for fault, name, done, detail in verdict.rows:
        listed[fault] += 1
        if listed[fault] <= SHOWN:
            faults.append({"fault": fault, "name": name, "done": done, "detail": detail})
    close = suspicious(images, pairs)
    return {
        "files": files,
        "images": len(images.names),
        "classes": counts,
        "imbalance": round(max(counts.values()) / min(counts.values()), 4),
        "splits": {
            side: _by_class(images, validates == flag)
            for side, flag in zip(SPLITS, (False, True), strict=True)
        },
        "split_is_given": any(images.splits),
        "gave_way": [{"class": name, "guess": guess} for name, guess in split.gave_way],
        "groups": len(set(images.groups) - {""}),
        "groups_across_splits": _torn(images, validates) if any(images.splits) else [],
        "fault_counts": dict(sorted(listed.items())),
        "faults": faults,
        "near_duplicates": {
            "pairs": len(pairs),
            "across_classes": sum(what != "alike" for what, _, _ in close),
            "across_splits": int((validates[pairs[:, 0]] != validates[pairs[:, 1]]).sum()),
            "shown": [list(pair) for pair in close[:SHOWN]],
        },
    }


def _torn(images: Images, validates: Flags) -> list[str]:
    """Return the groups that have images in both splits."""
    sides = zip(images.groups, images.guessed, validates.tolist(), strict=True)
    both = {(group, side) for group, guess, side in sides if group and not guess}
    return sorted(group for group, side in both if side and (group, False) in both)


def _by_class(images: Images, flags: Flags) -> dict[str, int]:
    counts = np.bincount(images.labels[flags], minlength=len(images.classes))
    return dict(zip(images.classes, counts.tolist(), strict=True))
