"""Submissions as they come in: an ONNX file, a folder or a ZIP file, of people nobody vouches for.

A ZIP file is never unpacked: the few files that a submission may hold are read by their names, each
up to its limit, so that no path in it can lead anywhere and no size in it can fill a disk.
"""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from weighin.errors import DataError, ModelError
from weighin.file_names import printable

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
MAX_READ = 2**20  # bytes that are read of a ZIP file at once; so many has its table of contents
LONGEST = 100  # characters of an entry's name that are told
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
    both = list(zip(teams, entries, strict=True))
    teams = [team if teams.count(team) == 1 else path.name for team, path in both]
    if len(set(teams)) < len(teams):  # x.onnx, x.zip, x.onnx.zip
        teams = [path.name for path in entries]
    return [Submission(printable(team), path) for team, path in zip(teams, entries, strict=True)]


def plain(path: Path, most: int) -> bytes:
    """Return the bytes of a plain file of at most `most`; no link, pipe or device is opened.

    Raises:
        ModelError: it is something else, too large, or cannot be read.
    """
    with _opened(path) as file:
        _check_size(os.fstat(file.fileno()).st_size, path.name, most)
        return file.readall()


@contextmanager
def _opened(path: Path) -> Iterator["_ZipFile"]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ModelError(f"{path.name} is not a plain file: {error.strerror}", FIX) from None
    with _ZipFile(handle) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ModelError(f"{path.name} is not a plain file", FIX)
        yield file


class _ZipFile(io.FileIO):
    """An open file, of which a table of contents that would fill the memory is not read."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes."""
        if size is not None and size > MAX_READ:
            raise zipfile.BadZipFile("its table of contents is too long")
        return super().read(size)


def read_file(path: Path, name: str) -> bytes | None:
    """Return a file of the submission at `path`, None where it has none of that name.

    Raises:
        ModelError: the submission or the file in it is a link, too large, or damaged.
    """
    if path.is_symlink():
        raise ModelError(f"{path.name} is a link", FIX)
    if path.is_dir():
        return plain(path / name, MAX_BYTES[name]) if os.path.lexists(path / name) else None
    if path.suffix.lower() == ".zip":
        return _of_zip(path, name)
    return plain(path, MAX_BYTES[name]) if name == MODEL else None


def read_model(path: Path) -> bytes:
    """Return a submission's ONNX file.

    Raises:
        ModelError: there is none, or `read_file` refuses it.
    """
    data = read_file(path, MODEL)
    if data is None:
        raise ModelError(f"{path.name} holds no {MODEL}{_instead(path)}", FIX)
    return data


def _instead(path: Path) -> str:
    """Return what a submission holds in place of a model, its ONNX files first."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
    else:
        with _opened(path) as file, zipfile.ZipFile(file) as bundle:
            names = sorted(name for name in bundle.namelist() if not name.endswith("/"))
    names.sort(key=lambda name: not name.lower().endswith(".onnx"))
    told = ", ".join(printable(name[:LONGEST]) for name in names[:3]) or "nothing"
    return f"; it holds {told}" + ", ..." * (len(names) > 3)


def _of_zip(path: Path, name: str) -> bytes | None:
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as bundle:
            entries = [each for each in bundle.infolist() if _names(each.filename, name)]
            if len(entries) > 1:
                raise ModelError(f"{path.name} holds {name} more than once", FIX)
            return _of_entry(bundle, entries[0], name) if entries else None
    except ModelError:
        raise
    except Exception as error:  # zipfile and the codecs below it raise many kinds
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
    _check_size(entry.file_size, name, MAX_BYTES[name])
    data = bytearray()
    with bundle.open(entry) as file:  # the size that it claims may be another than it has
        while part := file.read(MAX_READ):
            data += part
            _check_size(len(data), name, MAX_BYTES[name])
    return bytes(data)


def _check_size(size: int, name: str, most: int) -> None:
    if size > most:
        raise ModelError(f"{name} has {size:,} bytes, over {most:,}", FIX)
