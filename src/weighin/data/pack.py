"""Packed images: what training reads, one memory-mapped array for each split and size.

<folder>/train_46x64.npy        uint8 (N, H, W, 3), plain NumPy files
<folder>/validation_46x64.npy
<folder>/train_46x64.2.npy      the same images twice as large, where crops are cut from such
<folder>/images.csv             row, split, class, name, group, sha256; rows in array order
<folder>/classes.json           the sorted class names; a label is an index into them
<folder>/splits.npy             bool (splits, N): the rows that validate in further splits
"""

import csv
import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from weighin.errors import DataError
from weighin.files import read_json
from weighin.images import Pixels, Size

COLUMNS = ("split", "row", "class", "name", "group", "sha256")
ARRAY = r"train_(\d+)x(\d+)(?:\.(\d+))?\.npy"
REMAKE = "run `dvc repro prepare`"


@dataclass(frozen=True)
class Packed:
    """One split at one size."""

    images: Pixels  # (N, H, W, 3), a memory map
    labels: npt.NDArray[np.int64]  # (N,)
    names: list[str]
    classes: tuple[str, ...]


def array_path(folder: Path, split: str, size: Size, finer: int = 1) -> Path:
    """Return where the pixels of a split lie, or those of images `finer` times as large."""
    return folder / f"{split}_{size[0]}x{size[1]}{f'.{finer}' if finer > 1 else ''}.npy"


def packed_sizes(folder: Path) -> list[Size]:
    """Return the sizes that were packed, smallest area first."""
    sizes = [(h, w) for h, w, finer in _packed(folder) if finer == 1]
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def packed_finer(folder: Path) -> int:
    """Return how many times larger a side the images lie there from which crops are cut."""
    return max((finer for _, _, finer in _packed(folder)), default=1)


def _packed(folder: Path) -> list[tuple[int, int, int]]:
    names = (re.fullmatch(ARRAY, path.name) for path in folder.glob("train_*.npy"))
    return [(int(found[1]), int(found[2]), int(found[3] or 1)) for found in names if found]


def read_packed(folder: Path, side: str, size: Size, split: int = 0, finer: int = 1) -> Packed:
    """Return one side of a split at a size; the pixels stay on disk until they are touched.

    `side` is train or validation; split 0 is the one that lies packed, the further ones are rows of
    both of its sides. `finer` images are so many times larger a side.

    Raises:
        DataError: it was not packed, or the files do not belong together.
    """
    if split:
        return _further(folder, side, size, split, finer)
    path = array_path(folder, side, size, finer)
    if not path.exists():
        fix = f"add [{size[0]}, {size[1]}] to prepare.sizes in params.yaml, then {REMAKE}"
        raise DataError(f"{path} does not exist", fix)
    classes = tuple(read_json(folder / "classes.json"))
    label = {name: index for index, name in enumerate(classes)}
    names, own = _rows(folder / "images.csv", side, _stamp(folder / "images.csv"))
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if (
        images.shape != (len(names), *(edge * finer for edge in size), 3)
        or images.dtype != np.uint8
    ):
        problem = f"{path} holds {images.shape} {images.dtype}, images.csv {len(names)} rows"
        raise DataError(problem, REMAKE)
    return Packed(images, np.array([label[name] for name in own], np.int64), names, classes)


class JoinedRows:
    """Rows of several arrays (N, H, W, 3), read when they are indexed, by `places` (M,)."""

    def __init__(self, parts: Sequence[Pixels], places: npt.NDArray[np.int64]) -> None:
        self.parts, self.places = parts, places
        self.starts = np.cumsum([0, *map(len, parts)])
        self.shape, self.dtype = (len(places), *parts[0].shape[1:]), parts[0].dtype

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, chosen: slice | npt.NDArray[np.int64]) -> Pixels:
        places = self.places[chosen]
        found = np.empty((len(places), *self.shape[1:]), self.dtype)
        for part, start in zip(self.parts, self.starts, strict=False):
            mine = (places >= start) & (places < start + len(part))
            found[mine] = part[places[mine] - start]
        return found

    def __array__(self, dtype: object = None, copy: bool | None = None) -> Pixels:
        return self[:]


def joined(parts: Sequence[Pixels]) -> Pixels:
    """Return the rows of several arrays, one after another, which stay where they are."""
    if len(parts) == 1:
        return parts[0]
    return cast(Pixels, JoinedRows(parts, np.arange(sum(map(len, parts)))))


def _further(folder: Path, side: str, size: Size, split: int, finer: int) -> Packed:
    packs = [read_packed(folder, one, size, finer=finer) for one in ("train", "validation")]
    validates = read_splits(folder)[split - 1]
    places = np.flatnonzero(validates == (side == "validation"))
    names = [name for pack in packs for name in pack.names]
    labels = np.concatenate([pack.labels for pack in packs])
    images = cast(Pixels, JoinedRows([pack.images for pack in packs], places))
    return Packed(images, labels[places], [names[at] for at in places], packs[0].classes)


def write_splits(folder: Path, validates: npt.NDArray[np.bool_]) -> None:
    """Write which rows of images.csv validate in each further split (splits, N)."""
    with (folder / "splits.npy").open("wb") as file:
        np.save(file, validates, allow_pickle=False)


def read_splits(folder: Path) -> npt.NDArray[np.bool_]:
    """Return which rows of images.csv validate in each further split (splits, N).

    Raises:
        DataError: they were not written.
    """
    return np.load(_present(folder / "splits.npy"), allow_pickle=False)  # type: ignore[no-any-return]


def validation_groups(folder: Path, splits: int) -> list[npt.NDArray[np.int64]]:
    """Return the groups, as numbers, of the validation images of so many splits.

    An image without a group has a number of its own.

    Raises:
        DataError: there are not so many.
    """
    further = read_splits(folder)[: splits - 1] if splits > 1 else np.zeros((0, 0), bool)
    if splits > 1 + len(further):
        problem = f"{folder} has 1 split, which train.csv gives, and {splits} are asked for"
        fix = "set search.splits and tune.splits to 1, or import without a split of your own"
        raise DataError(problem, fix)
    numbers: dict[str, int] = {}
    found, validates = list[int](), list[bool]()
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        side, group = map(next(rows).index, ("split", "group"))
        for place, row in enumerate(rows):
            found.append(numbers.setdefault(row[group], place) if row[group] else place)
            validates.append(row[side] == "validation")
    return [np.array(found, np.int64)[flags] for flags in (np.array(validates, bool), *further)]


def _present(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} does not exist", REMAKE)
    return path


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content, as DVC sees it."""
    facts = _present(path).stat()
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
    with _present(folder / "images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_array(path: Path, pieces: Iterable[npt.NDArray[np.uint8]], shape: Sequence[int]) -> None:
    """Write uint8 `pieces`, which make up `shape` together, with the bytes `np.save` would."""
    facts = {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, facts)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).data)


def write_table(path: Path, rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Write rows as CSV one by one: a table of 100,000 images is never held as one text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
