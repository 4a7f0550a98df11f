"""Checks, splits and packs the images of data/: the prepare stage.

`prepare` reads data/ and changes nothing in it; its outputs depend on nothing but the files'
content and names, the parameters and the seed. Measured by `bench/data.py`.

Every image is read once, in parallel: its hashes, its faults, its pixels at every packed size. A
worker writes its rows straight into the drafts at their offsets and returns a small record an
image, so memory does not grow with the pixels and the bytes do not depend on who wrote them.

For people there are report.json and pictures: a contact sheet for each class, the suspicious pairs.
They are JPEG files with the same bytes for the same data: libjpeg and FreeType work in integers,
and which images a sheet shows follows from their content, so it hardly changes when images are
added.
"""

import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from weighin.data.faults import (
    RECORD,
    SIDE,
    Pairs,
    Records,
    Verdict,
    close_pairs,
    dropped,
    hexadecimal,
    judge,
    mark,
    perceptual_hashes,
    thumbnail,
)
from weighin.data.listing import Listing, Place, opened
from weighin.data.pack import COLUMNS, array_path, write_array, write_splits, write_table
from weighin.data.shards import open_images
from weighin.data.splits import SPLITS, Flags, Images, Split, read_given, selected, split_images
from weighin.files import NEW, replace_folder, write_json
from weighin.images import LEAST, Pixels, Size, Source, UnreadableImageError
from weighin.parallel import workers as worker_pool
from weighin.params import Prepare
from weighin.progress import Progress, say

CHUNK = 64  # images that a worker is sent at once
MAX_BYTES = 256 * 2**20  # a larger file is no photograph; reading it would only fill the memory
BLOCK = 2**20  # bytes of pixels moved at once
SHOWN = 200  # faults of each kind, and pairs, that report.json lists; faults.csv has every fault
TILE = 112  # pixels a side
LINE = 14  # pixels a line of text
TILES_WIDE, TILES_HIGH = 8, 4
PAIRS = 24
PAPER, INK = (255, 255, 255), (40, 40, 40)

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
    listing = open_images(source / "train", workers)
    given = read_given(source, params.group, listing.names)
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
    for line in (*given.notes, *_told(verdict, report)):
        say(f"prepare: {line}")
    return report


def _arrays(params: Prepare) -> list[Array]:
    """Return what is packed: each size, and the larger images from which crops are cut."""
    return [(size, finer) for finer in sorted({1, params.supersample}) for size in params.sizes]


# --- every image is read once


@dataclass(frozen=True)
class Scan:
    """What every worker needs: the folder, and where the pixels of each size go."""

    root: Path
    drafts: tuple[Path, ...]  # raw uint8, (N, H, W, 3) each
    sizes: tuple[Size, ...]
    turn_tall: bool
    max_aspect: float


def scan(places: Sequence[Place], job: Scan, pool: Executor, workers: int) -> Records:
    """Return one record for each image, having written each picture's row into the drafts."""
    for draft, (height, width) in zip(job.drafts, job.sizes, strict=True):
        with draft.open("wb") as file:
            file.truncate(len(places) * height * width * 3)
    records = np.zeros(len(places), RECORD)
    progress = Progress("prepare", len(places))
    unsaid = 0
    for start, part in _parts(places, job, pool, 4 * workers):
        records[start : start + len(part)] = part
        unsaid += len(part)
        if unsaid * 20 >= len(places) or start + len(part) == len(places):
            progress.step("images", unsaid)
            unsaid = 0
    return records


def scan_part(places: Sequence[Place], start: int, job: Scan) -> Records:
    """Return the records of the images at `places`, whose first is image number `start`."""
    records = np.zeros(len(places), RECORD)
    thumbnails = np.zeros((len(places), SIDE, SIDE), np.uint8)
    with contextlib.ExitStack() as stack:
        drafts = [stack.enter_context(path.open("r+b")) for path in job.drafts]
        for index, place in enumerate(places):
            digest, faults, rows = _one(job, place, thumbnails[index])
            records[index] = digest, 0, mark(*faults)
            for draft, row in zip(drafts, rows, strict=False):  # no rows of what is unreadable
                draft.seek((start + index) * row.nbytes)
                draft.write(row.data)
    records["hash"] = perceptual_hashes(thumbnails)
    return records


def _one(
    job: Scan, place: Place, thumbnail_row: Pixels
) -> tuple[bytes, tuple[str, ...], list[Pixels]]:
    """Fill the thumbnail of one image and return its SHA-256, its faults and its rows."""
    try:
        with opened(job.root, place) as (file, size):
            if size > MAX_BYTES:
                return b"", ("bomb",), []
            data = file.read(size)
    except OSError:
        return b"", ("unreadable",), []
    digest = hashlib.sha256(data).digest()
    try:
        source = Source(data)
        # faults and hash are those of one scale, so that no split changes with the packed sizes
        thumbnail_row[:] = thumbnail(source.image(LEAST))
        faults = source.notes
        rows = [source.fitted(size, job.turn_tall) for size in job.sizes]
    except UnreadableImageError as error:
        return digest, (error.fault,), []
    extreme = max(source.shape) > job.max_aspect * min(source.shape)
    return digest, (*faults, "extreme-aspect") if extreme else faults, rows


def _parts(
    places: Sequence[Place], job: Scan, pool: Executor, ahead: int
) -> Iterator[tuple[int, Records]]:
    """Yield (start, records) in order, with at most `ahead` parts under way."""
    waiting: deque[tuple[int, Future[Records]]] = deque()
    for start in range(0, len(places), CHUNK):
        part = places[start : start + CHUNK]
        waiting.append((start, pool.submit(scan_part, part, start, job)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


# --- what is kept is packed


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


# --- what is said of it


def _told(verdict: Verdict, report: Report) -> Iterator[str]:
    """Yield what to say of images that were dropped, and of splits that share what is alike."""
    for fault, many, (_, name, _, detail) in dropped(verdict.rows):
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


# --- what is shown of it


def draw_pictures(
    listing: Listing, out: Path, images: Images, verdict: Verdict, pairs: Pairs, pool: Executor
) -> list[Future[str]]:
    """Have `out`/<Class>.jpg and `out`/-pairs.jpg written; each gives its name when it is there."""
    root, drawn = listing.root.absolute(), []
    for label, name in enumerate(images.classes):
        mine = np.flatnonzero(images.labels == label)
        # those of the smallest hashes: the choice hardly changes when images are added
        some = mine[
            np.argsort(images.records["sha256"][mine], kind="stable")[: TILES_WIDE * TILES_HIGH]
        ]
        title = f"{name}: {len(mine)} images"
        chosen = [listing.place(images.names[place]) for place in some]
        drawn.append(pool.submit(contact_sheet, root, title, chosen, out / f"{name}.jpg"))
    contradictions = {
        tuple(sorted((name, other)))
        for fault, name, _, other in verdict.rows
        if fault == "contradiction"
    }
    doubtful = [("same bytes, two classes", a, b) for a, b in sorted(contradictions)]
    doubtful += suspicious(images, pairs)
    if doubtful:
        shown = [(*row, listing.place(row[1]), listing.place(row[2])) for row in doubtful[:PAIRS]]
        drawn.append(pool.submit(pair_sheet, root, shown, out / "-pairs.jpg"))
    return drawn


def suspicious(images: Images, pairs: Pairs) -> list[tuple[str, str, str]]:
    """Return (what, name, name) of the near-duplicates, those of two classes first."""
    named = [
        (int(images.labels[a] == images.labels[b]), images.names[a], images.names[b])
        for a, b in pairs.tolist()
    ]
    return [("alike" if same else "alike, two classes", a, b) for same, a, b in sorted(named)]


def contact_sheet(root: Path, title: str, places: Sequence[Place], path: Path) -> str:
    """Write the pictures at `places` as a grid of tiles under a title; return its name."""
    rows = -(-len(places) // TILES_WIDE)
    sheet = Image.new("RGB", (TILES_WIDE * TILE, LINE + 4 + rows * TILE), PAPER)
    _write(sheet, (4, 1), title, TILES_WIDE * TILE)
    for number, place in enumerate(places):
        row, column = divmod(number, TILES_WIDE)
        sheet.paste(_tile(root, place), (column * TILE, LINE + 4 + row * TILE))
    return _save(sheet, path)


def pair_sheet(root: Path, pairs: Sequence[tuple[str, str, str, Place, Place]], path: Path) -> str:
    """Write pairs (what is suspicious, names, places) side by side, each under its words."""
    height = TILE + 3 * LINE + 6
    columns = 4
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * 2 * TILE, rows * height), PAPER)
    for number, (*words, left, right) in enumerate(pairs):
        row, column = divmod(number, columns)
        x, y = column * 2 * TILE, row * height
        for line, text in enumerate(words):
            _write(sheet, (x + 4, y + line * LINE), text, 2 * TILE - 8)
        sheet.paste(_tile(root, left), (x, y + 3 * LINE + 2))
        sheet.paste(_tile(root, right), (x + TILE, y + 3 * LINE + 2))
    return _save(sheet, path)


def _tile(root: Path, place: Place) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), PAPER)
    try:
        with opened(root, place) as (file, size):
            source = Source(file.read(size))
        least = TILE * min(source.shape) // max(source.shape)  # its longer side fills the tile
        image = source.image(max(1, least)).copy()
    except (OSError, UnreadableImageError):
        return tile
    image.thumbnail((TILE - 4, TILE - 4), Image.Resampling.BILINEAR)
    tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return tile


def _write(sheet: Image.Image, place: tuple[int, int], text: str, width: int) -> None:
    font = ImageFont.load_default(10)
    draw = ImageDraw.Draw(sheet)
    plain = text.replace("\n", " ")
    while len(plain) > 4 and draw.textlength(plain, font) > width:
        plain = "…" + plain[2:]  # the end of a file name tells more than its beginning
    draw.text(place, plain, INK, font)


def _save(sheet: Image.Image, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=85)
    return path.name
