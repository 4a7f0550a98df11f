"""Packed images: what training reads, one memory-mapped array for each split and size.

<folder>/train_46x64.npy        uint8 (N, H, W, 3), plain NumPy files
<folder>/validation_46x64.npy
<folder>/images.csv             row, split, class, name, group, sha256; rows in array order
<folder>/classes.json           the sorted class names; a label is an index into them
"""

import csv
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from weighin.errors import DataError
from weighin.files import read_json
from weighin.images import Size

COLUMNS = ("split", "row", "class", "name", "group", "sha256")
REMAKE = "run `dvc repro prepare`"


@dataclass(frozen=True)
class Packed:
    """One split at one size."""

    images: "np.memmap[tuple[int, int, int, int], np.dtype[np.uint8]]"  # (N, H, W, 3)
    labels: npt.NDArray[np.int64]  # (N,)
    names: list[str]
    classes: tuple[str, ...]


def array_path(folder: Path, split: str, size: Size) -> Path:
    """Return where the pixels of a split lie."""
    return folder / f"{split}_{size[0]}x{size[1]}.npy"


def packed_sizes(folder: Path) -> list[Size]:
    """Return the sizes that were packed, smallest area first."""
    names = (path.stem.removeprefix("train_") for path in folder.glob("train_*x*.npy"))
    sizes = [tuple(map(int, name.split("x"))) for name in names]
    return sorted(((h, w) for h, w in sizes), key=lambda size: (size[0] * size[1], size))


def read_packed(folder: Path, split: str, size: Size) -> Packed:
    """Return a split at a size; the pixels stay on disk until they are touched.

    Raises:
        DataError: it was not packed, or the files do not belong together.
    """
    path = array_path(folder, split, size)
    if not path.exists():
        fix = f"add [{size[0]}, {size[1]}] to prepare.sizes in params.yaml, then {REMAKE}"
        raise DataError(f"{path} does not exist", fix)
    classes = tuple(read_json(folder / "classes.json"))
    label = {name: index for index, name in enumerate(classes)}
    names, own = _rows(folder / "images.csv", split, _stamp(folder / "images.csv"))
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.shape != (len(names), *size, 3) or images.dtype != np.uint8:
        problem = f"{path} holds {images.shape} {images.dtype}, images.csv {len(names)} rows"
        raise DataError(problem, REMAKE)
    return Packed(images, np.array([label[name] for name in own], np.int64), names, classes)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content, as DVC sees it."""
    if not path.exists():
        raise DataError(f"{path} does not exist", REMAKE)
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


@functools.lru_cache(4)  # a worker reads the same table for each of its trials
def _rows(path: Path, split: str, _stamp: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Return the names and the classes of a split's images."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        side, name, label = map(next(rows).index, ("split", "name", "class"))
        mine = [(row[name], row[label]) for row in rows if row[side] == split]
    return [name for name, _ in mine], [label for _, label in mine]


def read_table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of images.csv."""
    path = folder / "images.csv"
    if not path.exists():
        raise DataError(f"{path} does not exist", REMAKE)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_array(path: Path, pieces: Iterable[npt.NDArray[np.uint8]], shape: Sequence[int]) -> None:
    """Write uint8 `pieces`, which make up `shape` together, with the bytes `np.save` would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_header(file, shape)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).data)


def write_header(file: BinaryIO, shape: Sequence[int]) -> None:
    """Write the header that `np.save` gives a uint8 array of `shape`."""
    facts = {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(file, facts)


def write_table(path: Path, rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Write rows as CSV one by one: a table of 100,000 images is never held as one text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
