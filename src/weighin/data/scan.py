"""Reads every image once, in parallel: its hashes, its faults, its pixels at every packed size.

A worker writes its rows straight into the drafts at their offsets and returns a small record an
image, so memory does not grow with the pixels and the bytes do not depend on who wrote them.
"""

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.data.near import SIDE, perceptual_hashes, thumbnail
from weighin.errors import WorkerError
from weighin.images import LEAST, Pixels, Size, Source, UnreadableImageError
from weighin.progress import Progress

# A record's `marks` are bits in this order
UNREADABLE = ("unreadable", "zero-byte", "not-an-image", "truncated", "bomb")
UNUSUAL = (
    "damaged",
    "animated",
    "cmyk",
    "16-bit",
    "palette-transparency",
    "exif-rotated",
    "extreme-aspect",
)
MARKS = UNREADABLE + UNUSUAL
RECORD = np.dtype([("sha256", "S64"), ("hash", "u8"), ("marks", "u4")])

Records = npt.NDArray[np.void]
CHUNK = 32
MAX_BYTES = 256 * 2**20  # a larger file is no photograph; reading it would only fill the memory


@dataclass(frozen=True)
class Scan:
    """What every worker needs: the folder, and where the pixels of each size go."""

    root: Path
    drafts: tuple[Path, ...]  # raw uint8, (N, H, W, 3) each
    sizes: tuple[Size, ...]
    turn_tall: bool
    max_aspect: float


def scan(names: list[str], job: Scan, workers: int) -> Records:
    """Return one record for each name, having written each picture's row into the drafts.

    Raises:
        WorkerError: a worker process died, mostly for want of memory.
    """
    for draft, (height, width) in zip(job.drafts, job.sizes, strict=True):
        with draft.open("wb") as file:
            file.truncate(len(names) * height * width * 3)
    records = np.zeros(len(names), RECORD)
    progress = Progress("prepare", len(names))
    unsaid = 0
    for start, part in _parts(names, job, workers):
        records[start : start + len(part)] = part
        unsaid += len(part)
        if unsaid * 20 >= len(names) or start + len(part) == len(names):
            progress.step("images", unsaid)
            unsaid = 0
    return records


def scan_part(names: list[str], start: int, job: Scan) -> Records:
    """Return the records of `names`, whose first is image number `start`."""
    records = np.zeros(len(names), RECORD)
    thumbnails = np.zeros((len(names), SIDE, SIDE), np.uint8)
    rows = [np.zeros((len(names), *size, 3), np.uint8) for size in job.sizes]
    for index, name in enumerate(names):
        digest, faults = _one(job, name, thumbnails[index], [part[index] for part in rows])
        records[index] = digest, 0, mark(*faults)
    records["hash"] = perceptual_hashes(thumbnails)
    for draft, part in zip(job.drafts, rows, strict=True):
        with draft.open("r+b") as file:
            file.seek(start * part[0].nbytes)
            file.write(part.data)
    return records


def _one(
    job: Scan, name: str, thumbnail_row: Pixels, rows: list[Pixels]
) -> tuple[str, tuple[str, ...]]:
    """Fill the rows of one image and return its SHA-256 and its faults."""
    try:
        with (job.root / name).open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                return "", ("bomb",)
            data = file.readall()
    except OSError:
        return "", ("unreadable",)
    digest = hashlib.sha256(data).hexdigest()
    try:
        source = Source(data)
        # faults and hash are those of one scale, so that no split changes with the packed sizes
        thumbnail_row[:] = thumbnail(source.image(LEAST))
        faults = source.notes
        for row, size in zip(rows, job.sizes, strict=True):
            row[:] = source.fitted(size, job.turn_tall)
    except UnreadableImageError as error:
        return digest, (str(error),)
    extreme = max(source.shape) > job.max_aspect * min(source.shape)
    return digest, (*faults, "extreme-aspect") if extreme else faults


def mark(*faults: str) -> int:
    """Return the bits of faults."""
    return sum(1 << MARKS.index(fault) for fault in faults)


def _parts(names: list[str], job: Scan, workers: int) -> Iterator[tuple[int, Records]]:
    """Yield (start, records) in order, with a bounded number of parts under way."""
    starts = range(0, len(names), CHUNK)
    if workers == 1 or len(starts) == 1:
        for start in starts:
            yield start, scan_part(names[start : start + CHUNK], start, job)
        return
    context = multiprocessing.get_context("spawn")
    waiting: deque[tuple[int, Future[Records]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for start in starts:
                part = names[start : start + CHUNK]
                waiting.append((start, pool.submit(scan_part, part, start, job)))
                if len(waiting) > 4 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        except BrokenProcessPool:
            problem = "a worker process went away while it read images"
            mend = "free some memory or use fewer workers, then run the same command again"
            raise WorkerError(problem, mend) from None
