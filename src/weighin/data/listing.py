"""What lies in a class-per-folder tree: every file's name and class, and what is odd about names.

`<root>/<Class>/**/<file>`; hidden files and folders are passed over. A name is the path below the
root with "/" between its parts. Nothing is opened here.
"""

import os
import re
import stat
import unicodedata
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from weighin.errors import DataError

# DVC may link a file of data/ to its cache instead of copying it
DVC_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")


@dataclass
class Listing:
    """The files of a tree, in the order of their names, and the faults seen so far."""

    names: list[str] = field(default_factory=list)
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # (fault, name, detail)

    def classes(self) -> tuple[str, ...]:
        """Return the sorted names of the classes that hold a file."""
        return tuple(sorted({class_of(name) for name in self.names}))


def class_of(name: str) -> str:
    """Return the class that a name belongs to."""
    return name.split("/", 1)[0]


def list_images(root: Path) -> Listing:
    """Return the files below `root`, a folder with one folder a class.

    Faults found: outside, no-class, unreadable (not a plain file, or a name that is not UTF-8),
    alike-names (which stay listed: the policy decides).

    Raises:
        DataError: `root` is not a folder or cannot be listed, or no class folder holds a file.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder of class folders",
            "bring a data set in with `weighin import FOLDER|CSV|COCO`",
        )
    listing = Listing()
    real_root = os.path.realpath(root)
    for name, entry in _walk(str(root), ""):
        fault = _fault(name, entry, real_root)
        if fault is None:
            listing.names.append(name)
        else:
            listing.faults.append((fault[0], _shown(name), fault[1]))
    if not listing.names:
        raise DataError(
            f"{root} holds no image in a class folder",
            "bring a data set in with `weighin import FOLDER|CSV|COCO`",
        )
    listing.names.sort()
    listing.faults.sort()
    listing.faults += alike(listing.names)
    return listing


def alike(names: list[str]) -> list[tuple[str, str, str]]:
    """Return an alike-names fault for each sorted name that differs from an earlier one by form.

    Names, or the folders in them, that are equal but for case or Unicode form fall together when
    they are copied to macOS or Windows.
    """
    doubtful = _repeated(names)
    first: dict[str, str] = {}
    faults = []
    for name in names if doubtful else ():
        for path in _paths(name):
            folded = _folded(path)
            other = first.setdefault(folded, path) if hash(folded) in doubtful else path
            if other != path:
                faults.append(("alike-names", name, other))
                break
    return faults


def _repeated(names: list[str]) -> set[int]:
    """Return the hashes that more than one path has when folded: numbers, as names fill memory."""
    hashes = array("q")
    before: list[str] = []
    for name in names:
        paths = _paths(name)
        hashes.extend(hash(_folded(path)) for path in paths if path not in before)
        before = paths
    found, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    return set(found[counts > 1].tolist())


def _paths(name: str) -> list[str]:
    """Return the folders that a name lies in, the outermost first, and the name itself."""
    return [name[:place] for place, letter in enumerate(name) if letter == "/"] + [name]


def _folded(name: str) -> str:
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield each file and each linked folder; links to folders are never followed, so no loops."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        fix = "make the folder readable for this user (chmod -R a+rX), then run again"
        raise DataError(f"cannot list {folder}: {error.strerror}", fix) from None
    while found:  # what an entry remembers of its file goes with it
        entry = found.pop()
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _fault(name: str, entry: "os.DirEntry[str]", root: str) -> tuple[str, str] | None:
    if _shown(name) != name:
        return "unreadable", "its name is not UTF-8"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "unreadable", "a link to nothing"
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if stat.S_ISDIR(mode):
            return "outside", "a link to a folder"
        if not target.startswith(root + os.sep) and not DVC_CACHE.search(target):
            return "outside", "a link out of the folder"
    if "/" not in name:
        return "no-class", "not in a class folder"
    return None if stat.S_ISREG(mode) else ("unreadable", "not a plain file")


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
