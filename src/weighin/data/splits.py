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
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weighin.data.faults import Images, hexadecimal
from weighin.data.near_duplicates import Pairs, components
from weighin.errors import DataError

SPLITS = ("train", "validation")
MOST_SPLITS = 5  # that one data set has
Flags = npt.NDArray[np.bool_]


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
