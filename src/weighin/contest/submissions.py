"""Submissions as they come in: an ONNX file, a folder or a ZIP file, of people nobody vouches for.

A ZIP file is never unpacked: the few files that a submission may hold are read by their names, each
up to its limit, so that no path in it can lead anywhere and no size in it can fill a disk.
"""

import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from weighin.errors import DataError, ModelError

MODEL, ANSWERS = "model.onnx", "submission.csv"
MAX_BYTES = {  # what a submission may hold, and how large each file may be
    MODEL: 200_000_000,
    ANSWERS: 100_000_000,
    "metrics.json": 10_000_000,
    "provenance.json": 10_000_000,
    "provenance.dsse.json": 20_000_000,
    "MODEL_CARD.md": 10_000_000,
    "source.json": 100_000,
}
FIX = "hand in an .onnx file, a folder or a ZIP file with a model.onnx in it (`weighin submit`)"


@dataclass(frozen=True)
class Submission:
    """A team's name and where what it handed in lies."""

    team: str
    path: Path


def found_in(folder: Path) -> list[Submission]:
    """Return the submissions of a folder, in the order of their names: one an entry.

    Raises:
        DataError: it is no folder, or holds no entry.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "name the folder that holds the submissions")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not entries:
        raise DataError(f"{folder} holds no submission", FIX)
    suffixes = (".onnx", ".zip")
    teams = [path.stem if path.suffix.lower() in suffixes else path.name for path in entries]
    return [
        Submission(team if teams.count(team) == 1 else path.name, path)
        for team, path in zip(teams, entries, strict=True)
    ]


def read_file(path: Path, name: str) -> bytes | None:
    """Return a file of the submission at `path`, None where it has none of that name.

    Raises:
        ModelError: the submission or the file in it is a link, too large, or damaged.
    """
    if path.is_symlink():
        raise ModelError(f"{path.name} is a link", FIX)
    if path.is_dir():
        return _bounded(path / name, name) if _is_there(path / name) else None
    if path.suffix.lower() == ".zip":
        return _of_zip(path, name)
    return _bounded(path, name) if name == MODEL else None


def read_model(path: Path) -> bytes:
    """Return a submission's ONNX file.

    Raises:
        ModelError: there is none, or `read_file` refuses it.
    """
    data = read_file(path, MODEL)
    if data is None:
        raise ModelError(f"{path.name} holds no {MODEL}", FIX)
    return data


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _bounded(path: Path, name: str) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ModelError(f"{path.name} is not a plain file", FIX)
    _check_size(path.stat().st_size, name)
    return path.read_bytes()


def _of_zip(path: Path, name: str) -> bytes | None:
    try:
        with zipfile.ZipFile(path) as bundle:
            entries = [each for each in bundle.infolist() if _names(each.filename, name)]
            if len(entries) > 1:
                raise ModelError(f"{path.name} holds {name} more than once", FIX)
            return _of_entry(bundle, entries[0], name) if entries else None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise ModelError(f"{path.name} is not a sound ZIP file: {error}", FIX) from None


def _names(entry: str, name: str) -> bool:
    """Return whether an entry is the file `name`, at the top or in one wrapping folder."""
    parts = PurePosixPath(entry.replace("\\", "/")).parts
    return parts[-1:] == (name,) and len(parts) <= 2 and ".." not in parts and parts[0] != "/"


def _of_entry(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> bytes:
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ModelError(f"{name} in the ZIP file is a link", FIX)
    if entry.flag_bits & 1:
        raise ModelError(f"{name} in the ZIP file is encrypted", FIX)
    _check_size(entry.file_size, name)
    with bundle.open(entry) as file:  # the size that it claims may be another than it has
        data = file.read(MAX_BYTES[name] + 1)
    _check_size(len(data), name)
    return data


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES[name]:
        raise ModelError(f"{name} has {size:,} bytes, over {MAX_BYTES[name]:,}", FIX)
