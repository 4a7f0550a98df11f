"""Puts the images of data/ into shards (`shards.py`): a few large files in place of many small."""

import csv
import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from weighin.data import versioning
from weighin.data.listing import Listing, class_of, list_images
from weighin.data.shards import BLOCK, IMAGE, shards_of
from weighin.data.versioning import DRAWN, IMPORTED, changes, link, snapshot, write_mark
from weighin.errors import DataError
from weighin.files import (
    NEW,
    canonical_json,
    free_place,
    read_json,
    recover_folder,
    replace_folder,
)
from weighin.parallel import workers as worker_pool
from weighin.progress import Progress


def pack_data(data: Path, size: int, workers: int) -> list[str]:
    """Put the images of `data`/train into shards of `size` bytes; return what to say of it.

    All else in `data` stays. What is neither an import, nor drawn, nor kept by DVC moves aside.

    Raises:
        DataError: there are shards already, or files that shards would not keep.
        OutputError: the disk is full or the folder cannot be written; `data` is as it was.
    """
    root = data / "train"
    recover_folder(data)
    if shards_of(root):
        raise DataError(f"{root} holds shards already", "nothing is left to do")
    listing = list_images(root)
    for _, name, detail in (fault for fault in listing.faults if fault[0] != "name-collision"):
        raise DataError(f"{root / name} cannot be kept in a shard: {detail}", "move it away first")
    own = [m for m in (IMPORTED, DRAWN) if (data / m).exists() and not changes(data, m)]
    beside = None if own or versioning.kept(data) else free_place(data)
    before = snapshot(data)
    with replace_folder(data, beside) as draft:
        shards = write_shards(listing, draft / NEW / "train", size, workers)
        for path in data.iterdir():
            if path.is_dir() and path != root:
                shutil.copytree(path, draft / NEW / path.name, copy_function=link)
            elif path.is_file() and path.name not in own:
                shutil.copyfile(path, draft / NEW / path.name)
        for mark in own:
            write_mark(draft / NEW, mark, read_json(data / mark))
        if snapshot(data) != before:
            raise DataError(f"{data} was changed meanwhile", "run the same command again")
    lines = [f"{len(listing.names):,} images in {shards:,} shards in {root}"]
    return lines + ([f"what {data} was is in {beside}"] if beside else [])


def write_shards(listing: Listing, out: Path, size: int, workers: int) -> int:
    """Write the images of a listing into `out`/shard-*.tar and return how many shards there are.

    Bytes follow from names and contents alone: members in the order of names, without dates and
    owners. A shard is full with the image that takes it to `size` bytes.
    """
    out.mkdir(parents=True)
    jobs: list[tuple[Path, Path, int, list[tuple[str, dict[str, str]]]]] = []
    said, full = _said(listing.root.parent / "train.csv"), size
    for number, name in enumerate(listing.names):
        if full >= size:
            full = 0
            jobs.append((listing.root, out / f"shard-{len(jobs):06d}.tar", number, []))
        full += 4 * BLOCK + (listing.root / name).stat().st_size
        jobs[-1][3].append((name, {"class": class_of(name), "name": name, **said.get(name, {})}))
    progress = Progress("images packed", len(listing.names))
    with worker_pool(max(1, min(workers, len(jobs))), "it wrote shards") as pool:
        for written in pool.map(_write_shard, jobs):
            progress.step("images", written)
    return len(jobs)


def _said(table: Path) -> dict[str, dict[str, str]]:
    """Return the groups and splits that train.csv gives to images, by name."""
    if not table.exists():
        return {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("filename")]
    return {row["filename"]: {k: row[k] for k in ("group", "split") if row.get(k)} for row in rows}


def _write_shard(job: tuple[Path, Path, int, Sequence[tuple[str, dict[str, str]]]]) -> int:
    root, path, first, samples = job
    with tarfile.open(path, "x", format=tarfile.USTAR_FORMAT) as tar:
        for number, (name, facts) in enumerate(samples, first):
            suffix = PurePosixPath(name).suffix[1:].lower()
            key = f"{number:09d}"
            _add(tar, f"{key}.{suffix if suffix in IMAGE else 'bin'}", (root / name).read_bytes())
            _add(tar, f"{key}.json", canonical_json(facts).encode())
    return len(samples)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
