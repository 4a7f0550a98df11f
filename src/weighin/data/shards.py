"""Images in a few tar files in place of many files: the layout of WebDataset.

    data/train/shard-000000.tar
        000000000.jpg       an image: the bytes of its file
        000000000.json      {"class": "Paper", "name": "Paper/x.jpg"}; the name may be left out
        000000001.jpg
        000000001.cls       or its class as text

A sample's key is the path of its members up to the first point of the last part, and the rest is
what a member is: https://github.com/webdataset/webdataset#the-webdataset-format. Members of a
sample follow each other, and no key comes twice. An image without a name of its own is called
<class>/<key>.<suffix>. `prepare` reads the images where they lie; nothing is unpacked.
"""

import io
import itertools
import json
import re
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from weighin.data.listing import Listing, Member, class_of, list_images, name_collisions
from weighin.data.splits import read_given
from weighin.errors import DataError
from weighin.file_names import IMAGE_SUFFIXES, is_text, printable
from weighin.files import canonical_json
from weighin.parallel import workers as worker_pool
from weighin.progress import Progress

KEY = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)")
IMAGE = {*(suffix[1:] for suffix in IMAGE_SUFFIXES), "bin"}  # "bin": a file without such a suffix
BLOCK = tarfile.BLOCKSIZE
ARCHIVE = re.compile(r"\.(zip|t[gbx]z2?|tar(\.(gz|bz2|xz))?|7z|rar)$", re.I)
FIX = "make the shards again, with `weighin pack-data` or with WebDataset's TarWriter"

Header = tuple[int, int]  # of a member: offset of its bytes, size


class Sample(NamedTuple):
    """An image of a shard, and what is said of it."""

    name: str
    label: str
    member: Member
    group: str = ""
    split: str = ""


def unpacking(path: Path) -> str:
    """Return how to unpack an archive of class folders; empty if a file is called as none is."""
    found = ARCHIVE.search(path.name)
    if found is None:
        return ""
    if found[1].lower() in ("7z", "rar"):
        return "unpack it, and name the folder that comes out"
    module = "zipfile" if found[1].lower() == "zip" else "tarfile"
    folder = path.with_name(path.name[: found.start()])
    command = f"python -m {module} -e {shlex.quote(str(path))} {shlex.quote(str(folder))}"
    return f"unpack it, and name the folder that comes out: {command}"


def shards_of(root: Path) -> list[Path]:
    """Return the tar files of a folder that holds no folders: these are its images."""
    if not root.is_dir():
        return []
    shown = [path for path in root.iterdir() if path.name[0] != "."]
    if any(path.is_dir() for path in shown):
        return []
    return sorted(path for path in shown if path.suffix.lower() == ".tar")


def open_images(root: Path, workers: int = 1) -> Listing:
    """Return the images below `root`, a folder of class folders or of shards.

    Raises:
        DataError: there are none, or a shard is broken.
    """
    if not shards_of(root):
        return list_images(root)
    samples = read_shards(root, workers)
    listing = Listing(root, [sample.name for sample in samples])
    listing.members = {sample.name: sample.member for sample in samples}
    listing.faults = name_collisions(listing.names)
    return listing


def read_shards(root: Path, workers: int = 1) -> list[Sample]:
    """Return the samples of all shards of a folder in the order of their names.

    Raises:
        DataError: a shard is broken or holds no sample; a name comes twice.
    """
    paths = shards_of(root)
    with worker_pool(max(1, min(workers, len(paths))), "it read shards") as pool:
        found = list(pool.map(read_shard, paths))
    samples = sorted((one for part in found for one in part), key=lambda one: one.name)
    for one, other in itertools.pairwise(samples):
        if one.name == other.name:
            where = " and ".join(sorted({one.member.shard, other.member.shard}))
            raise DataError(f"{root}: two samples are called {one.name}, in {where}", FIX)
    return samples


def read_shard(path: Path) -> list[Sample]:
    """Return the samples of a shard in its order.

    Raises:
        DataError: it is no whole tar file; a key comes twice or leads out of the folder; a sample
            has not one image, or no class.
    """
    try:
        with path.open("rb") as file:
            samples = [_sample(path, file, *one) for one in _samples(path, file).items()]
    except OSError as error:
        fix = "check that it exists and that you may read it, then run the same command again"
        raise DataError(f"{path} cannot be read: {error.strerror or error}", fix) from None
    if not samples:
        raise DataError(f"{path} holds no sample", FIX)
    return samples


def _samples(path: Path, file: BinaryIO) -> dict[str, dict[str, Header]]:
    """Return {key: {suffix: where its bytes are}} of a tar file."""
    samples: dict[str, dict[str, Header]] = {}
    last = ""
    for member in _members(path, file):
        found = KEY.fullmatch(member.name.removeprefix("./"))
        if found is None or member.isdir():  # a hidden file, or one that is said nothing of
            continue
        key, suffix = found[1], found[2].lower()
        if not is_text(member.name):
            raise DataError(f"{path}: the name {printable(member.name)} is not UTF-8", FIX)
        parts = key.split("/")
        if {"", ".", ".."} & set(parts):
            raise DataError(f"{path}: the name {member.name} leads out of the data set", FIX)
        if not member.isreg() or member.issparse():
            raise DataError(f"{path}: {member.name} is a link or no plain file", FIX)
        sample = samples.setdefault(key, {})
        if suffix in sample or (sample and key != last):
            raise DataError(f"{path}: the key {key} comes twice", FIX)
        sample[suffix], last = (member.offset_data, member.size), key
    return samples


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            kept: list[tarfile.TarInfo] = vars(tar)["members"]  # it keeps all that it has read
            while member := tar.next():
                kept.clear()
                yield member
            end = tar.offset
    except tarfile.TarError as error:
        raise DataError(f"{path} is no whole tar file: {error}", FIX) from None
    file.seek(end)  # a broken header ends a tar file too, as far as the module can tell
    rest = file.read(BLOCK)
    if len(rest) < BLOCK or any(rest):
        raise DataError(f"{path} is no whole tar file: it breaks off at byte {end:,}", FIX)


def _sample(path: Path, file: BinaryIO, key: str, parts: dict[str, Header]) -> Sample:
    images = sorted(IMAGE & parts.keys())
    if len(images) != 1:
        what = f"several images ({', '.join(images)})" if images else "no image"
        raise DataError(f"{path}: the sample {key} has {what}", FIX)
    facts = _facts(path, file, key, parts)
    label = _text(facts.get("class", facts.get("label")))
    if not label and "cls" in parts:
        try:
            label = _read(file, parts["cls"]).decode("utf-8-sig").strip()
        except UnicodeDecodeError:  # other letters in their place would make two classes one
            fix = f"write it as UTF-8; or {FIX}"
            raise DataError(f"{path}: the .cls of the sample {key} is not UTF-8", fix) from None
    odd = label[:1] == "." or any(letter in label for letter in "/\\\0\n") or not is_text(label)
    if not label or odd:
        shown = printable(label)
        what = f'the class "{shown}", which no folder can be called' if label else "no class"
        fix = f"give it a .cls, or a .json with class; or {FIX}"
        if not label and "/" in key:
            fix += f"; if its folders are classes, {unpacking(path)}"
        raise DataError(f"{path}: the sample {key} has {what}", fix)
    own = key if key.startswith(f"{label}/") else f"{label}/{key.replace('/', '_')}"
    name = str(facts.get("name") or f"{own}.{images[0]}")
    rest = name.removeprefix(f"{label}/").split("/")
    if not name.startswith(f"{label}/") or {"", ".", ".."} & set(rest) or not _is_name(name):
        shown = printable(name)
        raise DataError(f"{path}: the sample {key} of {label} cannot be called {shown}", FIX)
    group, split = (_text(facts.get(word)) for word in ("group", "split"))
    return Sample(name, label, Member(path.name, *parts[images[0]]), group, split)


def _is_name(name: str) -> bool:
    return "\0" not in name and is_text(name)


def _text(value: Any) -> str:
    """Return a text or a number as a text; a list, a truth value or NaN says nothing."""
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) if plain and value == value else ""


def _facts(path: Path, file: BinaryIO, key: str, parts: dict[str, Header]) -> dict[str, Any]:
    try:
        facts = json.loads(_read(file, parts["json"])) if "json" in parts else {}
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise DataError(f"{path}: the .json of the sample {key} is no JSON object", FIX)
    return facts


def _read(file: BinaryIO, where: Header) -> bytes:
    file.seek(where[0])
    return file.read(where[1])


def write_shards(listing: Listing, out: Path, size: int, workers: int) -> int:
    """Write the images of a listing into `out`/shard-*.tar and return how many shards there are.

    Bytes follow from names and contents alone: members in the order of names, without dates and
    owners. A shard is full with the image that takes it to `size` bytes.
    """
    out.mkdir(parents=True)
    jobs: list[tuple[Path, Path, int, list[tuple[str, dict[str, str]]]]] = []
    said, full = _said(listing), size
    for number, name in enumerate(listing.names):
        if full >= size:
            full = 0
            jobs.append((listing.root, out / f"shard-{len(jobs):06d}.tar", number, []))
        full += 4 * BLOCK + (listing.root / name).stat().st_size
        jobs[-1][3].append((name, {"class": class_of(name), "name": name, **said.get(name, {})}))
    progress = Progress("images packed", len(listing.names))
    with worker_pool(max(1, min(workers, len(jobs))), "it wrote shards") as pool:
        for written in pool.map(_write_shard, jobs):
            progress.step("images", written)
    return len(jobs)


def _said(listing: Listing) -> dict[str, dict[str, str]]:
    """Return the groups and splits that train.csv gives to images, by name."""
    given = read_given(listing.root.parent, "none", listing.names)
    said = {"group": given.groups, "split": given.splits}
    return {
        name: {word: of[name] for word, of in said.items() if of.get(name)} for name in given.groups
    }


def _write_shard(job: tuple[Path, Path, int, Sequence[tuple[str, dict[str, str]]]]) -> int:
    root, path, first, samples = job
    with tarfile.open(path, "x", format=tarfile.USTAR_FORMAT) as tar:
        for number, (name, facts) in enumerate(samples, first):
            suffix = PurePosixPath(name).suffix[1:].lower()
            key = f"{number:09d}"
            _add(tar, f"{key}.{suffix if suffix in IMAGE else 'bin'}", (root / name).read_bytes())
            _add(tar, f"{key}.json", canonical_json(facts).encode())
    return len(samples)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
