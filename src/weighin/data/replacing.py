"""What may be replaced: a folder that an import or a drawing wrote, or that DVC keeps as it is."""

import os
import shutil
from itertools import count
from pathlib import Path

from weighin.data import versioning
from weighin.data.marks import DRAWN, IMPORTED, changes
from weighin.errors import DataError


def aside(into: Path, force: bool) -> Path | None:
    """Return where to move what `into` holds; None if it may go.

    Raises:
        DataError: it is neither an import, nor drawn, nor kept by DVC, as it is now.
    """
    if not into.exists() or not any(into.iterdir()):
        return None
    changed = [changes(into, mark) for mark in (IMPORTED, DRAWN) if (into / mark).exists()]
    if [] in changed or versioning.kept(into):
        return None
    beside = free_place(into)
    if force:
        return beside
    names = min(changed, key=len, default=sorted(path.name for path in into.iterdir()))
    files = sum(path.is_file() for path in into.rglob("*"))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    what = "was changed since it was imported" if changed else "was not written by an import"
    raise DataError(
        f"{into} {what}, and is not kept by DVC as it is: {', '.join(names[:3])}{more}. "
        f"The import would have replaced its {files:,} files",
        f"move {into} away, or keep it with `dvc add {into}`; "
        f"or run again with --force, which moves it to {beside}",
    )


def free_place(folder: Path) -> Path:
    """Return the first of <folder>.before-1, -2... that is free."""
    places = (folder.with_name(f"{folder.name}.before-{number}") for number in count(1))
    return next(path for path in places if not path.exists())


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
