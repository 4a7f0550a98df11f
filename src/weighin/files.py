"""Bytes written on purpose: whole or not at all, sorted keys, "\\n", no dates; and YAML.

YAML is read as YAML 1.2: 1e-06 is a number and `no` is a text. What is written, a reader of YAML
1.1 understands alike: a text that one of them takes for something else (`no`, `1e5`) is quoted, and
a float has a point.
"""

import contextlib
import csv
import errno
import glob
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from weighin.errors import OutputError, ParamsError, WeighinError

T = TypeVar("T")
NEW, OLD = "new", "old"  # folders inside the draft of `replace_folder`
PIECE = 2**18  # bytes that are hashed at once
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")  # a text that YAML needs no quotes for,
NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}  # if it is none of these
MOST_VALUES = 1_000_000  # in a YAML file, its aliases written out
WIDEST = 44  # a longer value does not push the comments of its neighbours away
Line = tuple[str, str]  # a line of YAML, its comment


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` when the block ends well.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; `path` is as it was.
    """
    path = Path(path)
    draft: Path | None = None
    inside = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        draft = Path(name)
        inside = True
        yield draft
        inside = False
        draft.chmod(0o644)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    except OSError as error:
        if inside and not _is_about(draft, error):
            raise
        raise _unwritten(path, error) from error
    finally:
        if draft is not None:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder(target: Path, aside: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `target`; its `new` replaces `target` when the block ends well.

    What `target` was is removed, or moved to `aside`. The yielded folder's name is fixed: what a
    killed run left there is cleared by the next one, and a `target` that it had just moved away is
    put back.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; `target` is as it was.
    """
    draft = target.parent / f".{target.name}.draft"
    inside = False
    try:
        recover_folder(target)
        draft.mkdir(parents=True)
        inside = True
        yield draft
        inside = False
        if target.exists():
            target.rename(aside or draft / OLD)
        (draft / NEW).rename(target)
    except OSError as error:
        if inside and not _is_about(draft, error):
            raise
        raise _unwritten(target, error) from error
    finally:
        recover_folder(target)


def recover_folder(target: Path) -> None:
    """Put back the folder that a killed `replace_folder` had moved away, and clear its draft."""
    draft = target.parent / f".{target.name}.draft"
    with contextlib.suppress(OSError):
        if not target.exists():
            (draft / OLD).rename(target)
    shutil.rmtree(draft, ignore_errors=True)


def _is_about(draft: Path | None, error: OSError) -> bool:
    """Whether an error of the caller's own block is one of writing: an unreadable input is not."""
    if error.errno in FULL:
        return True
    named = [Path(os.fsdecode(n)) for n in (error.filename, error.filename2) if isinstance(n, str)]
    return any(draft == path or draft in path.parents for path in named)


def _unwritten(path: Path, error: OSError) -> OutputError:
    problem = f"cannot write {path}: {error.strerror or error}"
    fix = "free some space or make its folder writable, then run the same command again"
    return OutputError(problem, fix)


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` left beside it."""
    eight = "?" * 8  # what mkstemp appends
    for draft in Path(path).parent.glob(f".{glob.escape(Path(path).name)}.{eight}"):
        draft.unlink(missing_ok=True)


def keep_aside(path: Path, data: bytes) -> Path | None:
    """Move a file that holds anything but `data` to a free name beside it, and return that name."""
    if not path.exists() or path.read_bytes() == data:
        return None
    return path.rename(free_place(path))


def free_place(path: Path) -> Path:
    """Return the first of <path>.before-1, -2... that is free; a file's suffix stays at its end."""
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    names = (path.with_name(f"{stem}.before-{n}{suffix}") for n in itertools.count(1))
    return next(name for name in names if not name.exists())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with "\\n" line ends."""
    write_bytes(path, text.encode())


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys, two spaces of indent and a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as canonical JSON."""
    write_text(path, canonical_json(value))


def write_npy(path: Path, array: Any) -> None:
    """Write a NumPy array as a plain .npy file."""
    import numpy as np

    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    write_bytes(path, data.getvalue())


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """Return a table as CSV text with "\\n" line ends."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ","
) -> None:
    """Write a table as CSV (or TSV with a tab as `delimiter`)."""
    write_text(path, csv_text(header, rows, delimiter))


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a small file in a third of the time
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def sha256_tree(path: Path) -> str:
    """Return one hash for a file, or for a folder's file names and contents in sorted order."""
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    parts = sorted(
        (*above, name)
        for folder, _, names in os.walk(path)
        for above in [Path(folder).relative_to(path).parts]
        for name in names
    )
    names = ("/".join(part) for part in parts if "__pycache__" not in part)
    files = ((name, f"{path}/{name}") for name in names)
    present = ((name, file) for name, file in files if os.path.isfile(file))  # noqa: PTH113 - fast
    lines = (f"{name}\0{sha256_file(file)}\n" for name, file in present)
    return sha256("".join(lines).encode())


@cache
def source_hash(*packages: str) -> str:
    """Return one hash for the code of the ground floor and of these packages above it."""
    root = Path(__file__).parent
    files = [*root.glob("*.py"), *(p for name in packages for p in (root / name).rglob("*.py"))]
    return fingerprint({path.relative_to(root).as_posix(): sha256_file(path) for path in files})


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits that stand for JSON-able facts."""
    return sha256(canonical_json(facts).encode())[:16]


class JsonCache:
    """Results that survive a kill: a JSON file of values by name, written after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            known = read_json(path)
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            known = {}
        self.known: dict[str, Any] = known if isinstance(known, dict) else {}

    def __call__(self, name: str, compute: Callable[[], T]) -> T:
        """Return the JSON-able result called `name`, computed only if it is not on file."""
        if name not in self.known:
            self.known[name] = compute()
            write_json(self.path, self.known)
        result: T = self.known[name]
        return result


def read_yaml(path: Path, kind: type[WeighinError] = ParamsError) -> Any:
    """Return what a YAML 1.2 file holds.

    Raises:
        ParamsError, or another `kind`: the file is missing or is not YAML.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise kind(
            f"{path} does not exist", "run this in the project's folder, or name an existing file"
        ) from None
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror}", "name a YAML file") from None
    return from_yaml(data, path, kind)


def from_yaml(data: bytes, name: object, kind: type[WeighinError] = ParamsError) -> Any:
    """Return what the YAML 1.2 in `data` says; errors call it `name`.

    Raises:
        ParamsError, or another `kind`: it is not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(data.decode())
        if _values(value, {}) > MOST_VALUES:
            raise ValueError(f"its anchors and aliases stand for over {MOST_VALUES:,} values")
        return value
    except UnicodeDecodeError:
        raise kind(f"{name} is not text in UTF-8", f"save {name} as UTF-8") from None
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        line = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise kind(f"{name} is not YAML: {line}", f"edit {name}") from None


def _values(value: Any, counted: dict[int, int]) -> int:
    """Return how many values there are with every alias written out; each list is counted once."""
    if not isinstance(value, list | dict):
        return 1
    if id(value) not in counted:
        counted[id(value)] = MOST_VALUES  # until it is known: a list that holds itself has no end
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(value)]


def scalar(value: Any) -> str:
    """Return null, a truth value, a number or a text as YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in NOT_TEXT
        return value if plain else f'"{"".join(map(_escaped, value))}"'
    return str(value)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def flow(value: Any) -> str:
    """Return a value on one line, its lists and mappings in flow style."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{scalar(key)}: {flow(part)}' for key, part in value.items())}}}"
    return scalar(value)


def with_comments(lines: Sequence[Line]) -> str:
    """Return lines with their comments in one column."""
    widths = [len(text) for text, comment in lines if comment and len(text) <= WIDEST]
    column = max(widths, default=0)
    return "".join(
        f"{text:{column}}  # {comment}\n" if text and comment else f"{text}{comment}\n"
        for text, comment in lines
    )
