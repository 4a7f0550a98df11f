"""data/ as DVC keeps it, and what tells whether a folder is as it was left.

`data.dvc` names its content, so Git's history is the data's history. A mark is a file that Weigh-in
writes into a folder of its own: it holds the hash of each thing beside it, and facts that are told
to people. Marks tell of changes across runs, snapshots within one.

DVC's cost goes by files: `pack_data` puts the images into a few large ones.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weighin.data.listing import list_images
from weighin.data.shards import shards_of, write_shards
from weighin.errors import DataError, MismatchError, ParamsError
from weighin.files import (
    NEW,
    free_place,
    read_json,
    read_yaml,
    recover_folder,
    replace_folder,
    sha256_tree,
    write_json,
)

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
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (facts.st_size, facts.st_mtime_ns) for path, facts in found}


def link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


FOLDER_HASH = re.compile(r"[0-9a-f]+\.dir")
QUIET = {"DVC_NO_ANALYTICS": "1"}


def dvc(project: Path, *arguments: str) -> str:
    """Run DVC in a project's folder and return what it printed.

    Raises:
        DataError: DVC failed; its own words say why.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=project, env={**os.environ, **QUIET}, capture_output=True, text=True
    )
    if done.returncode:
        words = " ".join(done.stderr.rpartition("ERROR: ")[2].split())
        fix = (
            "change to the project's folder, or make this one a project: `git init && dvc init`"
            if "not inside of a DVC repository" in done.stderr
            else f"run `dvc {' '.join(arguments)} -v` to see all of it"
        )
        raise DataError(f"`dvc {' '.join(arguments)}` failed: {words}", fix)
    return done.stdout


def record(project: Path, data: str = "data") -> str:
    """Record the folder `data` with `dvc add` and return the name of the file that tells it."""
    dvc(project, "add", data)
    return f"{data}.dvc"


def recorded(project: Path, data: str = "data") -> str | None:
    """Return DVC's hash of the folder that `data`.dvc records; None if there is no such file."""
    path = project / f"{data}.dvc"
    if not path.exists():
        return None
    fix = f"run `git checkout {data}.dvc` for the one in Git, or `dvc add {data}` for what is here"
    try:
        found = read_yaml(path)["outs"][0]["md5"]
    except ParamsError as error:
        raise DataError(error.problem, fix) from None
    except (KeyError, IndexError, TypeError):
        found = None
    if not isinstance(found, str) or not FOLDER_HASH.fullmatch(found):
        raise DataError(f"{path} records no folder", fix)
    return found


def check_recordable(project: Path, data: str = "data") -> None:
    """Check that `record` of a folder or file will work, before anything is written.

    Raises:
        DataError: the folder is no DVC project, or Git keeps what `data` is, or what lies in it.
    """
    dvc(project, "root")
    tracked = subprocess.run(
        ["git", "ls-files", "--", data], cwd=project, capture_output=True, text=True, check=False
    ).stdout.split("\n")[0]
    if tracked:
        raise DataError(
            f"Git keeps {tracked}, and DVC cannot keep what Git does",
            f"run `git rm -r --cached {data}` and commit that, then run the same command again",
        )


@dataclass(frozen=True)
class Held:
    """A folder or file that DVC records, as it is now."""

    recorded: str  # DVC's hash of what the .dvc file tells
    now: str  # that of what is there; empty if nothing is
    kept: bool  # DVC's cache holds all of that
    recorded_kept: bool  # and all of what the .dvc file records


def held(folder: Path) -> Held | None:
    """Return what DVC knows of a folder or file; None without a DVC project or a .dvc file."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile import load

    def holds(cache: Any, found: Any) -> bool:
        if not found.isdir or not cache.exists(found.value):
            return bool(cache.exists(found.value))
        tree: Any = load(cache, found)
        return all(cache.exists(file.value) for _, _, file in tree)

    path = folder.absolute()
    with warnings.catch_warnings(), contextlib.suppress(DvcException, OSError):
        warnings.simplefilter("ignore")  # DVC's own deprecations
        with Repo(str(path.parent)) as repo:
            (out,) = repo.find_outs_by_path(str(path))
            recorded, wanted = str(out.hash_info.value), holds(out.cache, out.hash_info)
            if not path.exists():
                return Held(recorded, "", False, wanted)
            now = out.get_hash()
            return Held(recorded, str(now.value), holds(out.cache, now), wanted)
    return None


def kept(folder: Path) -> bool:
    """Return whether DVC keeps a folder as it is now: in its .dvc file, or in its cache."""
    wanted = recorded(folder.parent, folder.name)
    found = held(folder) if wanted else None
    return found is not None and (found.now == wanted or found.kept)


def aside(into: Path, force: bool) -> Path | None:
    """Return where to move what `into` holds; None if it may go.

    Raises:
        DataError: it is neither an import, nor drawn, nor kept by DVC, as it is now.
    """
    if not into.exists() or not any(into.iterdir()):
        return None
    changed = [changes(into, mark) for mark in (IMPORTED, DRAWN) if (into / mark).exists()]
    if [] in changed or kept(into):
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


def pack_data(data: Path, size: int, workers: int) -> list[str]:
    """Put the images of `data`/train into shards of `size` bytes; return what to say of it.

    All else in `data` stays. What is neither an import, nor drawn, nor kept by DVC moves aside.

    Raises:
        DataError: there are shards already, or files that shards would not keep.
        OutputError: the disk is full or the folder cannot be written; `data` is as it was.
    """
    root = data / "train"
    recover_folder(data)
    if shards_of(root):
        raise DataError(f"{root} holds shards already", "nothing is left to do")
    listing = list_images(root)
    for _, name, detail in (fault for fault in listing.faults if fault[0] != "name-collision"):
        raise DataError(f"{root / name} cannot be kept in a shard: {detail}", "move it away first")
    own = [m for m in (IMPORTED, DRAWN) if (data / m).exists() and not changes(data, m)]
    beside = None if own or kept(data) else free_place(data)
    before = snapshot(data)
    with replace_folder(data, beside) as draft:
        shards = write_shards(listing, draft / NEW / "train", size, workers)
        for path in data.iterdir():
            if path.is_dir() and path != root:
                shutil.copytree(path, draft / NEW / path.name, copy_function=link)
            elif path.is_file() and path.name not in own:
                shutil.copyfile(path, draft / NEW / path.name)
        for mark in own:
            write_mark(draft / NEW, mark, read_json(data / mark))
        if snapshot(data) != before:
            raise DataError(f"{data} was changed meanwhile", "run the same command again")
    lines = [f"{len(listing.names):,} images in {shards:,} shards in {root}"]
    return lines + ([f"what {data} was is in {beside}"] if beside else [])


def fetch(project: Path, default: str, draw: Callable[[Path], object]) -> str:
    """Bring data/ to what data.dvc records; return one line that says where it came from.

    Another version that DVC keeps, and a drawn set that was not changed, make way for it. `draw`
    draws the default data set, whose hash is `default`, into a folder.

    Raises:
        DataError: nothing is recorded, it can be had from nowhere, or data/ holds what is kept
            nowhere else.
        MismatchError: what was drawn here is not what is recorded.
    """
    wanted, folder = recorded(project), project / "data"
    if wanted is None:
        fix = "bring a data set in with `weighin import FOLDER|CSV|COCO`"
        raise DataError("there is no data.dvc", fix)
    there = folder.exists() and any(folder.iterdir())
    found = held(folder)
    if there and found and found.now == wanted:
        return "data/ is what data.dvc records"
    was = _replaceable(project, found, wanted) if there else ""
    words = ""
    if not found or not found.recorded_kept:
        try:
            dvc(project, "fetch", "data.dvc")
        except DataError as error:
            words = error.problem
        found = held(folder)
    if found and not found.recorded_kept and wanted != default:
        raise DataError(
            f"data.dvc records {wanted}, which neither DVC's cache nor a remote has; {words}",
            "have it pushed by who has it (`dvc push`), name that remote here (`dvc remote add -d "
            "NAME URL`), and run `weighin fetch` again",
        )
    if found is None or found.recorded_kept:
        dvc(project, "checkout", "--force", "data.dvc")
        return f"data/ is what data.dvc records, from DVC's cache or remote{was}"
    with replace_folder(folder) as draft:
        draw(draft / NEW)
    found = held(folder)
    if found is None or found.now != wanted:
        raise MismatchError(
            f"the data set drawn here is {found and found.now}, data.dvc records {wanted}",
            "install the versions of requirements.lock, remove data/ and run `weighin fetch` again",
        )
    record(project)
    return f"data/ was drawn, and is what data.dvc records{was}"


def _replaceable(project: Path, found: Held | None, wanted: str) -> str:
    """Return what is to be said of a data/ that makes way for the one that is recorded.

    Raises:
        DataError: DVC does not keep it, and it was not drawn or was changed since.
    """
    if found and found.kept:
        return f"; before, it was {found.now}, which DVC's cache keeps"
    folder = project / "data"
    if (folder / DRAWN).exists() and not changes(folder, DRAWN):
        return ""
    raise DataError(
        f"data/ is not what data.dvc records ({wanted}), and holds what is recorded "
        f"nowhere{_difference(project)}",
        "to keep it, record it with `dvc add data`; to have what data.dvc records, move "
        "data/ away; then run `weighin fetch` again",
    )


def _difference(project: Path) -> str:
    """Return how data/ differs from what data.dvc records, where DVC can tell: `: 2 added, ...`."""
    with contextlib.suppress(DataError, ValueError, KeyError):
        told = json.loads(dvc(project, "data", "status", "--granular", "--json"))["uncommitted"]
        files = {
            kind: [name for name in names if name.startswith("data/") and not name.endswith("/")]
            for kind, names in told.items()
            if isinstance(names, list)
        }
        parts = [
            f"{len(names):,} {kind}, such as {names[0]}" for kind, names in files.items() if names
        ]
        return ": " * bool(parts) + "; ".join(parts)
    return ""
