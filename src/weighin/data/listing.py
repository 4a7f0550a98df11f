"""What lies in a class-per-folder tree: every file's name and class, and what is odd about names.

`<root>/<Class>/**/<file>`; hidden files and other systems' droppings are passed over. A name is
the path below the root with "/" between its parts. Where the images lie in shards (`shards.py`),
names are those that they had, or would have, as files. Listing opens no file.
"""

import contextlib
import os
import stat
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weighin.errors import DataError
from weighin.file_names import escapes, fold, walk
from weighin.files import sha256, sha256_file


class Member(NamedTuple):
    """The bytes of an image in a shard."""

    shard: str  # the file's name below the root
    offset: int
    size: int


LINKS = LINKED_FILE, LINKED_FOLDER = "a link out of the folder", "a link to a folder"
NOT_TEXT = "its name is not UTF-8"
Place = str | Member  # where an image's bytes are: a file below the root, or a part of one


@contextlib.contextmanager
def opened(root: Path | str, place: Place) -> Iterator[tuple[FileIO, int]]:
    """Yield a file open for reading where an image begins, and the image's size in bytes."""
    name, offset, size = (place, 0, -1) if isinstance(place, str) else place
    with open(f"{root}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - twice as fast
        if size < 0:
            size = os.fstat(file.fileno()).st_size
        else:
            file.seek(offset)
        yield file, size


@dataclass
class Listing:
    """The images below `root`, in the order of their names, and the faults seen so far."""

    root: Path
    names: list[str] = field(default_factory=list)
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # (fault, name, detail)
    members: dict[str, Member] = field(default_factory=dict)  # of images in shards

    def place(self, name: str) -> Place:
        """Return where an image's bytes are."""
        return self.members.get(name, name)

    def size(self, name: str) -> int:
        """Return how many bytes an image has."""
        place = self.place(name)
        return (self.root / place).stat().st_size if isinstance(place, str) else place.size

    def hashes(self, names: Iterable[str], sizes: Collection[int]) -> dict[str, str]:
        """Return {SHA-256: image} of the first of equal images; of those of other sizes none."""
        known: dict[str, str] = {}
        for name in names:
            if self.size(name) in sizes:
                known.setdefault(sha256(self.read(name)), name)
        return known

    def read(self, name: str, most: int | None = None) -> bytes:
        """Return an image's bytes, at most so many of them."""
        with opened(self.root, self.place(name)) as (file, size):
            return file.read(size if most is None else min(size, most))

    def classes(self) -> tuple[str, ...]:
        """Return the sorted names of the classes that hold a file."""
        return tuple(sorted({class_of(name) for name in self.names}))


def class_of(name: str) -> str:
    """Return the class that a name belongs to."""
    return name.split("/", 1)[0]


def copies(folder: Path, known: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (file, image) of the files below `folder` that are a known {SHA-256: image}."""
    names = sorted(name for name, entry in walk(folder) if entry.is_file())
    hashes = ((name, sha256_file(folder / name)) for name in names)
    return [(name, known[digest]) for name, digest in hashes if digest in known]


def list_images(root: Path) -> Listing:
    """Return the files below `root`, a folder with one folder a class.

    Faults found: escaping-link, no-class, unreadable (not a plain file, or a name that is not
    UTF-8), name-collision (which stay listed: the policy decides).

    Raises:
        DataError: `root` is not a folder or cannot be listed, or no class folder holds a file.
    """
    listing = list_files(root)
    listing.faults += [
        ("no-class", name, "not in a class folder") for name in listing.names if "/" not in name
    ]
    listing.names = [name for name in listing.names if "/" in name]
    if not listing.names:
        raise DataError(
            f"{root} holds no image in a class folder",
            "bring a data set in with `weighin import FOLDER|CSV|COCO`",
        )
    listing.faults = sorted(listing.faults) + name_collisions(listing.names)
    return listing


def list_files(root: Path) -> Listing:
    """Return the plain files below `root`; anything else is a fault.

    Raises:
        DataError: `root` is not a folder or cannot be listed, or it holds no file.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder of class folders",
            "bring a data set in with `weighin import FOLDER|CSV|COCO`",
        )
    listing = Listing(root)
    for name, entry in walk(root):
        fault = _fault(name, entry, root)
        if fault is None:
            listing.names.append(name)
        else:
            listing.faults.append((fault[0], _shown(name), fault[1]))
    listing.names.sort()
    return listing


def name_collisions(names: list[str]) -> list[tuple[str, str, str]]:
    """Return a name-collision fault for each sorted name that differs from an earlier one by form.

    Names, or the folders in them, that are equal but for case or Unicode form fall together when
    they are copied to macOS or Windows.
    """
    doubtful = _repeated(names)
    first: dict[str, str] = {}
    faults = []
    for name in names if doubtful else ():
        for path in _paths(name):
            folded = fold(path)
            other = first.setdefault(folded, path) if hash(folded) in doubtful else path
            if other != path:
                faults.append(("name-collision", name, other))
                break
    return faults


def _repeated(names: list[str]) -> set[int]:
    """Return the hashes that more than one path has when folded: numbers, as names fill memory."""
    hashes = array("q")
    before: list[str] = []
    for name in names:
        paths = _paths(name)
        hashes.extend(hash(fold(path)) for path in paths if path not in before)
        before = paths
    found, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    return set(found[counts > 1].tolist())


def _paths(name: str) -> list[str]:
    """Return the folders that a name lies in, the outermost first, and the name itself."""
    return [name[:place] for place, letter in enumerate(name) if letter == "/"] + [name]


def _fault(name: str, entry: "os.DirEntry[str]", root: Path) -> tuple[str, str] | None:
    if _shown(name) != name:
        return "unreadable", NOT_TEXT
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "unreadable", "a link to nothing"
    if entry.is_symlink():
        if stat.S_ISDIR(mode):
            return "escaping-link", LINKED_FOLDER
        if escapes(entry.path, root):
            return "escaping-link", LINKED_FILE
    return None if stat.S_ISREG(mode) else ("unreadable", "not a plain file")


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
