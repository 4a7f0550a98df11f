"""Which images train and which validate: decided by content, so that adding one moves no other.

The rule. An image's unit is its group where it has one, else its bytes (SHA-256). Units that share
an image or a near-duplicate hang together and stand or fall as one, under the smallest of their
keys. That key, hashed with the seed, gives u in [0, 1); u < `validation` validates. Nothing depends
on names, order or how many images there are.

Such a rule gives a class n images of which v n validate only on average, with a standard deviation
of sqrt(v (1 - v) n), and no rule that moves nothing can do better: what must not move may not look
at the others. So a class is held to its share within a half of it (or three images), by moving its
own threshold just so far. At that bound, an added image may move one other. Simulated at v = 0.2: a
class of 60 validates with 6 to 18 images and one addition in 50 moves another; of 200, with 20 to
60 and one in 1,000; of 700, none in 1,000 (tests/data/test_splits.py). On waste7 the seven classes
have shares of 0.2 +- 0.036 over ten seeds, its bags being grouped by scene.

Further splits, for choices that one leaves open, turn u by `validation` each: at a fifth, the five
splits validate every image once, but for what the bounds move.

No class lacks a split: what only a guess holds together comes apart where it would.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from weighin.data.faults import Pairs, Records, Row, Verdict, components, dropped, hexadecimal
from weighin.data.listing import class_of
from weighin.errors import DataError
from weighin.file_names import TRAIN, VALIDATION, parts_of
from weighin.label_csv import split_of
from weighin.text_table import Table, column_key, read_table

SPLITS = ("train", "validation")
MOST_SPLITS = 5  # that one data set has
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Images:
    """The images that are kept, in the order of their names."""

    names: list[str]
    places: npt.NDArray[np.int64]  # (N,) rows of the drafts
    records: Records  # (N,)
    groups: list[str]
    guessed: list[bool]  # whether a group is only the sub-folder that the image lies in
    splits: list[str]  # train or validation where train.csv gives a split, else empty
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Given:
    """What data/train.csv says of images by name, and how `prepare.group` tells their groups."""

    kind: str  # none, folder or column
    groups: dict[str, str]
    splits: dict[str, str]
    notes: tuple[str, ...] = ()  # how the table was read, and what of it names no image

    def group(self, name: str) -> tuple[str, bool]:
        """Return an image's group, and whether it is only the first folder below its class."""
        parts = name.split("/")
        folder = parts[1] if len(parts) > 2 else ""
        group = {"folder": folder, "column": self.groups.get(name, "")}.get(self.kind, "")
        return group, group != "" and group == folder


def read_given(source: Path, kind: str, names: Sequence[str]) -> Given:
    """Return what tells the groups and the split of the images `names` of `source`/train.

    A folder is the first one below the class, and ties images of every class that has it; a column
    is `group` of train.csv, where `weighin import` wrote one. An empty group is none. The split is
    the column `split`, where the data came with one. A spreadsheet may have saved the table anew.

    Raises:
        DataError: train.csv has no such column, a split that is none, or nothing of these images.
    """
    path = source / "train.csv"
    if not path.exists():
        return Given(kind, {}, {})
    table = read_table(path, header=True)
    rows = list(_rows(path, table, kind))
    own = _own_names({row.name for row in rows}, names)
    groups, splits, lost = dict[str, str](), dict[str, str](), list[_Row]()
    for row in rows:
        file = own[row.name]
        if splits.get(file, row.split) != row.split:
            problem = f"{path}, line {row.line}: {file} is of the {splits[file]} split above"
            raise DataError(problem, "remove the wrong row")
        if file:
            groups[file] = row.group
            splits |= {file: row.split} if row.split else {}
        else:
            lost.append(row)
    such = f"{source / 'train'}, such as {lost[0].name}" if lost else ""
    if any(row.group or row.split for row in lost) and not groups:
        fix = f"import the data again, or remove {path}: prepare then chooses a split"
        raise DataError(f"none of the {len(lost):,} files that {path} names is in {such}", fix)
    notes = [f"{path.name}: {note}" for note in table.notes]
    notes += [f"{path.name}: {len(lost):,} rows name no image of {such}"] if lost else []
    moved = [
        row for row in rows if own[row.name] and row.label not in ("", class_of(own[row.name]))
    ]
    notes += [
        f"{path.name}: {len(moved):,} rows say another class than the folder of their image, such "
        f"as {row.name} ({row.label}); the folder counts: move the image to change its class"
        for row in moved[:1]
    ]
    return Given(kind, groups, splits, tuple(notes))


class _Row(NamedTuple):
    line: int
    name: str
    label: str
    group: str
    split: str  # train or validation; empty where the table gives none


def _rows(path: Path, table: Table, kind: str) -> Iterator[_Row]:
    """Yield what each row of train.csv says."""
    header = [column_key(title) for title in table.header]
    if kind == "column" and not {"filename", "group"} <= {*header}:
        fix = "add the column, or set prepare.group: none in params.yaml"
        raise DataError(f"{path} has no columns filename and group", fix)
    if "filename" not in header:
        problem = f"{path} has no column filename; it has {', '.join(table.header)}"
        raise DataError(problem, "name the column of its files so, or import the data again")
    for line, cells in zip(table.lines, table.rows, strict=True):
        said = dict(zip(header, cells, strict=True))
        name, word = said["filename"], said.get("split", "")
        split = split_of(word)
        if word and split not in (TRAIN, VALIDATION):
            fix = f"write train or validation into the column split of {path}"
            raise DataError(f'{path}, line {line}: the split of {name} is "{word}"', fix)
        yield _Row(line, name, said.get("class", ""), said.get("group", ""), split)


def _own_names(said: Collection[str], names: Sequence[str]) -> dict[str, str]:
    """Return {name in a table: the file that it means}, empty where it means none."""
    listed = {*names}
    spelled = {} if listed.issuperset(said) else {_plain(name): name for name in names}
    return {name: name if name in listed else spelled.get(_plain(name), "") for name in said}


def _plain(name: str) -> str:
    return "/".join(parts_of(name))


def selected(names: list[str], records: Records, verdict: Verdict, given: Given) -> Images:
    """Return what `verdict` keeps of `names`, in their order.

    Raises:
        DataError: fewer than two classes are left, or of one none in a split that train.csv gives.
    """
    places = np.flatnonzero(verdict.keep)
    kept = [names[place] for place in places]
    classes = tuple(sorted({class_of(name) for name in kept}))
    if len(classes) < 2:
        raise _too_few(len(names), len(kept), classes, verdict.rows)
    if given.splits:
        _refuse_emptied(names, kept, verdict.rows, given.splits)
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[class_of(name)] for name in kept], np.int64)
    groups = [given.group(name) for name in kept]
    if len({*groups}) == 1 and groups[0][1]:  # images/ in every class tells nothing apart
        groups = [("", False)] * len(kept)
    splits = [given.splits.get(name, "") for name in kept]
    return Images(
        *(kept, places, records[places]),
        *([group for group, _ in groups], [guess for _, guess in groups], splits),
        *(classes, labels),
    )


def _refuse_emptied(
    names: list[str], kept: list[str], rows: list[Row], splits: dict[str, str]
) -> None:
    """Refuse a class of which all images of a given split are dropped, though it has others."""
    before = Counter((class_of(name), splits.get(name, "")) for name in names)
    left = {(class_of(name), splits.get(name, "")) for name in kept}
    classes = {label for label, _ in left}
    for label, side in sorted(before.keys() - left):
        if label not in classes or not side:
            continue
        mine = (row for row in rows if class_of(row[1]) == label and splits.get(row[1]) == side)
        gone = dropped(mine)
        why = ", ".join(f"{many:,} {fault}" for fault, many, _ in gone)
        such = "".join(f", such as {r[1]}{f' ({r[3]})' if r[3] else ''}" for _, _, r in gone[:1])
        raise DataError(
            f"none of the {before[label, side]:,} images of class {label} that train.csv puts into "
            f"the {side} split can be used: {why}{such}",
            f"import other images of {label} for {side}, or import without a split of your own "
            "(name the training folder alone, or --split-column none): prepare then chooses one",
        )


def _too_few(files: int, kept: int, classes: tuple[str, ...], rows: list[Row]) -> DataError:
    """Return the error that says what became of the images of a data set without two classes."""
    why = "".join(
        f"\n{many:,} {fault}: such as {name}{', ' * bool(detail)}{detail}"
        for fault, many, (_, name, _, detail) in dropped(rows)
    )
    left = f"{kept:,} images" + (f" of one class, {classes[0]}," if classes else "")
    fix = "convert or replace these files, or relax prepare.faults in params.yaml, and "
    return DataError(
        f"of {files:,} files {left} can be used; two classes are needed{why}",
        f"{fix if why else ''}bring in at least two classes with `weighin import`",
    )


@dataclass(frozen=True)
class Split:
    """Which images validate, and what it took to give every class both splits."""

    validates: Flags  # (N,)
    further: (
        Flags  # (MOST_SPLITS - 1, N): the same by other shares of the units; (0, N) if it is given
    )
    gave_way: list[tuple[str, str]]  # (class, the guess that does not hold its images together)


def split_images(images: Images, pairs: Pairs, validation: float, seed: int) -> Split:
    """Return the split that train.csv gives, else one by content; `pairs` are near-duplicates.

    Copies and images of one group are always in one split. Near-duplicates and images of one
    sub-folder are too, but for a class that would lack a split by it: there this guess gives way.

    Raises:
        DataError: a class cannot have an image in both splits, or train.csv gives it none in one.
    """
    if any(images.splits):
        return Split(_given(images), np.zeros((0, len(images.names)), bool), [])
    digests, labels = images.records["sha256"], images.labels
    folders = [g if guess else "" for g, guess in zip(images.groups, images.guessed, strict=True)]
    groups = ["" if guess else g for g, guess in zip(images.groups, images.guessed, strict=True)]
    firm = np.concatenate([_copies(digests), _tied(groups)])
    guesses = {"near-duplicates": pairs, "sub-folders": _tied(folders)}
    gave_way: list[tuple[str, str]] = []
    while True:
        together = components(len(labels), np.concatenate([firm, *guesses.values()]))
        loose = {name for name, guess in gave_way if guess == "sub-folders"}
        keys = (
            unit_key(hexadecimal(digest), "" if images.classes[label] in loose else group)
            for digest, group, label in zip(digests, images.groups, labels, strict=True)
        )
        u = positions(keys, together, seed)
        validates = assign(u, labels, validation)
        lacking = one_sided(validates, labels)
        if not len(lacking):
            turns = ((u - turn * validation) % 1.0 for turn in range(1, MOST_SPLITS))
            further = [assign(turned, labels, validation) for turned in turns]
            return Split(validates, np.stack(further), gave_way)
        before = len(gave_way)
        for label in lacking.tolist():
            guess = _in_the_way(label, labels, firm, guesses)
            if guess is None and len(gave_way) == before:
                raise _cannot_be_split(label, images, groups)
            if guess is None:  # what another class gave up may have held this one
                continue
            gave_way.append((images.classes[label], guess))
            if guess == "sub-folders":  # other classes that share one stay tied by it
                folders = [
                    "" if own == label else f for f, own in zip(folders, labels, strict=True)
                ]
                guesses[guess] = _tied(folders)
            else:
                guesses[guess] = guesses[guess][~(labels[guesses[guess]] == label).any(axis=1)]


def one_sided(validates: Flags, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the labels whose images are all in one split."""
    every, some = np.bincount(labels), np.bincount(labels[validates], minlength=labels.max() + 1)
    return np.flatnonzero((every > 0) & ((some == 0) | (some == every)))


def _given(images: Images) -> Flags:
    validates = np.array([split == "validation" for split in images.splits])
    for label in one_sided(validates, images.labels).tolist():
        side = SPLITS[not validates[images.labels == label].any()]
        raise DataError(
            f"train.csv puts no image of class {images.classes[label]} into the {side} split",
            f"import the class with images for {side}, or import without a split of your own "
            "(name the training folder alone, or --split-column none): prepare then chooses one",
        )
    return validates


def _in_the_way(
    label: int, labels: npt.NDArray[np.int64], firm: Pairs, guesses: dict[str, Pairs]
) -> str | None:
    """Return the guess without which a class falls into most parts; None if it has no ties."""
    mine = labels == label
    parts = {}
    for guess, ties in guesses.items():
        if mine[ties].any():
            others = [firm, *(other for name, other in guesses.items() if name != guess)]
            parts[guess] = len(np.unique(components(len(labels), np.concatenate(others))[mine]))
    return max(parts, key=parts.__getitem__, default=None)


def _cannot_be_split(label: int, images: Images, groups: list[str]) -> DataError:
    name, mine = images.classes[label], np.flatnonzero(images.labels == label)
    if len(mine) == 1:
        fix = f"add images of {name}, or set prepare.faults.small_class: drop in params.yaml"
        return DataError(f"class {name} has one image, which cannot train and validate", fix)
    found = sorted({groups[place] for place in mine})
    fix = f"add images of {name} of another group, or set prepare.group: none in params.yaml"
    if found == [""]:
        fix = f"add other images of {name}, or set prepare.faults.small_class: drop in params.yaml"
        return DataError(f"all {len(mine)} images of class {name} are copies of one", fix)
    how = f'are of one group, "{found[0]}"' if len(found) == 1 else "hang together by their groups"
    return DataError(f"all {len(mine)} images of class {name} {how}, so one split has none", fix)


def _copies(digests: npt.NDArray[np.bytes_]) -> Pairs:
    order = np.argsort(digests, kind="stable")
    same = digests[order[1:]] == digests[order[:-1]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _tied(groups: list[str]) -> Pairs:
    """Return each image of a group, paired with the group's first."""
    first: dict[str, int] = {}
    heads = (first.setdefault(group, at) if group else at for at, group in enumerate(groups))
    firsts = np.fromiter(heads, np.int64, len(groups))
    others = np.flatnonzero(firsts != np.arange(len(groups)))
    return np.stack([firsts[others], others], axis=1)


def unit_key(sha256: str, group: str) -> str:
    """Return what an image is split by: its group, or else its content."""
    return f"group {group}" if group else f"image {sha256}"


def position(seed: int, key: str) -> float:
    """Return u in [0, 1) for a component's smallest unit key."""
    digest = hashlib.sha256(f"split\n{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def assign(u: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], validation: float) -> Flags:
    """Return (N,) flags: True where an image of these `positions` and classes validates."""
    validates = u < validation
    for label in np.unique(labels):
        _hold(validates, u, labels == label, validation)
    _flip(validates, u, labels, validation)
    return validates


def positions(
    keys: Iterable[str], component: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.float64]:
    """Return where each image lies in [0, 1), (N,).

    `keys` are the images' unit keys, `component` (N,) the first image that each one hangs together
    with. Of the keys, only those of images that hang together are held.
    """
    alone = np.bincount(component, minlength=len(component))[component] == 1
    u = np.zeros(len(component))
    smallest: dict[int, str] = {}  # at the place of each component's first image
    for place, key in enumerate(keys):
        if alone[place]:
            u[place] = position(seed, key)
        else:
            first = int(component[place])
            smallest[first] = min(smallest.get(first, key), key)
    for first, key in smallest.items():
        u[first] = position(seed, key)
    return u[component]


def bounds(images: int, validation: float) -> tuple[int, int]:
    """Return the fewest and the most of a class's images that may validate."""
    share = validation * images
    room = max(3.0, share / 2)
    low = max(1, math.floor(share - room))
    return low, min(images - 1, max(low, math.ceil(share + room)))


def _hold(validates: Flags, u: npt.NDArray[np.float64], mine: Flags, validation: float) -> None:
    """Move components of a class, the nearest to the threshold first, until it is in its bounds.

    A class of one component stays where it is. One whose components are too large for the bounds
    comes as near to them as it can.
    """
    low, high = bounds(int(mine.sum()), validation)
    now = int(validates[mine].sum())
    parts, sizes = np.unique(u[mine], return_counts=True)
    if low <= now <= high or len(parts) < 2:
        return
    counts = np.cumsum(sizes)[:-1]  # images that validate if the threshold follows each part
    outside = np.maximum(np.maximum(low - counts, counts - high), 0)
    last = np.lexsort((np.abs(counts - now), outside))[0]
    own = np.isin(u, parts)
    validates[own] = u[own] <= parts[last]


def _flip(
    validates: Flags,
    u: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    validation: float,
) -> None:
    """Move single components, the nearest to the threshold first, while fewer classes lack a split.

    Components of several classes make a class lack one that it had before the next was held.
    """
    lacking = one_sided(validates, labels)
    at = 0
    while at < len(lacking):
        parts = np.unique(u[labels == lacking[at]])
        for part in parts[np.argsort(np.abs(parts - validation), kind="stable")]:
            validates[u == part] ^= True
            after = one_sided(validates, labels)
            if len(after) < len(lacking):
                lacking, at = after, -1
                break
            validates[u == part] ^= True
        at += 1
