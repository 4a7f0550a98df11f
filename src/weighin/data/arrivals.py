"""The images that an import has copied so far: each in its class, under a name of its own."""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from weighin.data.table import Row, wide_groups
from weighin.errors import DataError


@dataclass
class Arrivals:
    """What is in `folder`, and what could not be brought there."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)  # reason: annotations
    taken: set[str] = field(default_factory=set)

    def copy(self, source: Path, row: Row) -> None:
        """Copy the file `source` in as `row` says."""
        with source.open("rb") as file, self.add(row).open("wb") as copied:
            shutil.copyfileobj(file, copied, 2**20)

    def add(self, row: Row) -> Path:
        """Return where the image of a new row is to be written."""
        self.rows.append(row)
        target = self.folder / row.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def named(self, label: str, filename: str, group: str) -> Row:
        """Return a row for a file of any name: <class>/<its own name>, which no other has."""
        parts = [part.lstrip(".") for part in PurePosixPath(filename.replace("\\", "/")).parts]
        parts = [part for part in parts if part not in ("", "/")] or ["image"]
        name = f"{checked_class(label)}/{parts[-1]}"
        if name.casefold() in self.taken:
            name = f"{label}/{'_'.join(parts)}"
        stem, count = PurePosixPath(name), 2
        while name.casefold() in self.taken:
            name, count = str(stem.with_name(f"{stem.stem}_{count}{stem.suffix}")), count + 1
        self.taken.add(name.casefold())
        return Row(name, label, group)

    def table(self) -> list[tuple[str, str, str]]:
        """Return the rows of train.csv, sorted: filename, class, group; a wide group is none."""
        wide = wide_groups(self.rows)
        rows = (
            (row.filename, row.label, "" if row.group in wide else row.group) for row in self.rows
        )
        return sorted(rows)

    def report(self) -> dict[str, Any]:
        """Return the facts of import.json."""
        return {
            "images": len(self.rows),
            "classes": dict(sorted(Counter(row.label for row in self.rows).items())),
            "missing": sorted(self.missing),
            "skipped": dict(sorted(self.skipped.items())),
            "wide_groups": wide_groups(self.rows),
        }


def checked_class(label: str) -> str:
    """Return `label` if it can name a folder.

    Raises:
        DataError: it is empty, hidden or has a path in it.
    """
    if not label.strip() or label[0] == "." or any(c in label for c in "/\\\0\n"):
        fix = "rename the class in the CSV, or map it with a mapping CSV"
        raise DataError(f'class "{label}" cannot be the name of a folder', fix)
    return label
