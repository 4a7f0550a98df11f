"""What tells whether a folder is as it was left: marks across runs, snapshots within one.

A mark is a file that Weigh-in writes into a folder of its own: it holds the hash of each thing
beside it, and facts that are told to people.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weighin.files import read_json, sha256_tree, write_json

DRAWN, IMPORTED = "demo.json", "import.json"


def write_mark(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write `facts` as the JSON file `name` into a folder, with the hashes of all else in it."""
    write_json(folder / name, {**facts, "sha256": _hashes(folder, name)})


def changes(folder: Path, name: str) -> list[str]:
    """Return what was added, removed or changed in a folder since it was marked: its own names.

    What is marked in another form, or not at all, has changed wholly.
    """
    held = _hashes(folder, name)
    try:
        marked = dict(read_json(folder / name)["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return sorted([name, *held])
    return sorted(path for path in marked | held if marked.get(path) != held.get(path))


def _hashes(folder: Path, name: str) -> dict[str, str]:
    return {path.name: sha256_tree(path) for path in folder.iterdir() if path.name != name}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the size and time of every file: enough to see whether anyone wrote there since."""
    found = {}
    for path in folder.rglob("*"):
        facts = path.lstat()
        found[str(path)] = (facts.st_size, facts.st_mtime_ns)
    return found


def link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
