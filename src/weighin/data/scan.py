"""Reads every image once, in parallel: its hashes, its faults, its pixels at every packed size.

A worker writes its rows straight into the drafts at their offsets and returns a small record an
image, so memory does not grow with the pixels and the bytes do not depend on who wrote them.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from weighin.data.listing import Place, opened
from weighin.data.near_duplicates import SIDE, perceptual_hashes, thumbnail
from weighin.images import LEAST, Pixels, Size, Source, UnreadableImageError
from weighin.progress import Progress

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
CHUNK = 64  # images that a worker is sent at once
MAX_BYTES = 256 * 2**20  # a larger file is no photograph; reading it would only fill the memory


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


def hexadecimal(sha256: bytes) -> str:
    """Return a record's SHA-256 as text; NumPy's fixed-width bytes drop the zeros at their end."""
    return sha256.ljust(32, b"\0").hex()


def mark(*faults: str) -> int:
    """Return the bits of faults."""
    return sum(1 << MARKS.index(fault) for fault in faults)


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
