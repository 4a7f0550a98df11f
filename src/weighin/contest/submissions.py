"""Submissions: read as they come in, of people nobody vouches for; and written as one ZIP file.

What comes in is an ONNX file, a folder or a ZIP file. A ZIP file is never unpacked: the few files
that a submission may hold are read by their names, each up to its limit, so that no path in it can
lead anywhere and no size in it can fill a disk.

What `weighin submit` writes is a bundle of a project's submission, checked; it has the same bytes
wherever it is made from the same files.
"""

import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from weighin.data.versioning import dvc
from weighin.errors import DataError, ModelError, OutputError, WeighinError
from weighin.file_names import printable
from weighin.files import canonical_json, sha256, write_bytes
from weighin.grading.recount import count_file
from weighin.machine import output
from weighin.params import load
from weighin.report.signing import observe_build, uncommitted

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
NEEDED = (MODEL, ANSWERS, "metrics.json", "provenance.json", "MODEL_CARD.md")
REBUILD = "run `dvc repro`"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a ZIP file can hold


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
    if path.is_symlink():
        raise _link(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ModelError(f"{path.name} is not a plain file: {error.strerror}", FIX) from None
    with _ZipFile(handle) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ModelError(f"{path.name} is not a plain file", FIX)
        yield file


def _link(path: Path) -> ModelError:
    fix = (
        "hand in the file itself: `weighin submit` packs a project's own; what DVC linked becomes "
        "files by `dvc config cache.type copy` and `dvc checkout --relink`"
    )
    return ModelError(f"{path.name} is a link", fix)


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
        raise _link(path)
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


# --- the bundle that is handed in


def submit(project: Path, out: Path) -> tuple[list[str], str]:
    """Write the bundle of a project's submission to `out`.

    Returns:
        The names in it, and what keeps others from rebuilding it; empty where nothing does.

    Raises:
        DataError: an output is missing or older than what it is made from, or the outputs do not
            belong together.
    """
    if out.suffix.lower() != ".zip":
        raise OutputError(f"{out} is no name of a ZIP file", f"name it {out.stem}.zip")
    if out.exists() and not _is_bundle(out):
        raise OutputError(f"{out} is there already, and no bundle", "name another file")
    folder = project / "submission"
    files = {name: _read(folder / name) for name in NEEDED}
    signed = folder / "provenance.dsse.json"
    if signed.is_file():
        files[signed.name] = signed.read_bytes()
    _check_together(folder, files)
    _check_current(project)
    source = _source(project)
    files["source.json"] = canonical_json(source).encode()
    write_bytes(out, zipped(files))
    return sorted(files), _missing(project, source)


def _missing(project: Path, source: dict[str, str | None]) -> str:
    """Return what a source lacks to be rebuilt from, and the command that brings it."""
    if source["commit"] is None:
        if changed := uncommitted(project):
            return f"not committed: {', '.join(changed)}; git commit -a, push it, submit again"
        return "there is no commit: git add -A && git commit, push it, submit again"
    if source["repository"] is None:
        return "Git has no remote: git remote add origin URL, push to it, submit again"
    return ""


def _is_bundle(path: Path) -> bool:
    try:
        return read_file(path, "source.json") is not None
    except WeighinError:
        return False


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a ZIP file whose bytes depend on names and contents alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            bundle.writestr(entry, files[name])
    return out.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", REBUILD) from None


def _check_together(folder: Path, files: dict[str, bytes]) -> None:
    """Check that a model is the one that the metrics and the provenance are about."""
    counted, metrics = count_file(folder / MODEL), json_object(files["metrics.json"])
    if metrics.get("macs") != counted.macs:
        claim = f"{folder / 'metrics.json'} says {metrics.get('macs')} MACs"
        raise DataError(f"{claim}, {MODEL} does {counted.macs:,}", REBUILD)
    subjects = json_object(files["provenance.json"]).get("subject", [])
    recorded = {Path(each["name"]).name: each["digest"]["sha256"] for each in subjects}
    for name in (MODEL, ANSWERS):
        if recorded.get(name) != sha256(files[name]):
            raise DataError(f"{folder / name} is not the file that provenance.json names", REBUILD)


def _check_current(project: Path) -> None:
    """Check that data, parameters and code are those that the submission was made from.

    Raises:
        DataError: DVC says that one of them changed since.
    """
    changed: dict[str, list[str]] = {}
    for stage, entries in json.loads(dvc(project, "status", "--json") or "{}").items():
        for entry in entries:
            for found in entry.values() if isinstance(entry, dict) else ():
                for path, how in found.items():
                    names = how if isinstance(how, dict) else {path: how}  # of a file of parameters
                    changed.setdefault(stage, []).extend(map(str, names))
    if changed:
        stages = "; ".join(f"{stage}: {', '.join(names[:5])}" for stage, names in changed.items())
        problem = f"submission/ is older than what it is made from ({stages})"
        raise DataError(problem, f"{REBUILD}, and `dvc add data` where data/ changed")


def _source(project: Path) -> dict[str, str | None]:
    """Return where the submission can be rebuilt from: Git's remote and commit, if any.

    No commit is named where a tracked file differs from it, and no password in an address.
    """
    remote = output("git", "config", "--get", "remote.origin.url", folder=project) or ""
    return {
        "repository": re.sub(r"(?<=://)[^/@]*@", "", remote) or None,
        "commit": observe_build(project).commit,
        "seed": str(load(project / "params.yaml").seed),
    }


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where it holds none."""
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
